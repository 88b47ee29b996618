//! What rules about names have allowed, or would have.

use podgate_core::model::{DomainPattern, Peer};
use podgate_datapath::names::LearntAddress;

use super::*;

#[test]
fn a_connection_that_a_name_has_allowed_or_would_have_says_which() {
    let pattern = |text: &str| Peer::Name(DomainPattern::parse(text).expect("a literal of the test"));
    let rule = |text| Rule { peers: Peers::Listed(vec![pattern(text)]), ports: Ports::Any };
    let rules = vec![rule("a.test"), rule("*.example.com")];
    let context = Context {
        name_tables: Arc::new([(OWN, 5)].into()),
        ..context(REVISION, vec![policy("web", None, Some(rules))])
    };
    let a = address(&context, "a");
    let [known, ended, other] =
        ["198.51.100.7", "198.51.100.8", "198.51.100.9"].map(|it| it.parse().unwrap());
    let name = |text: &str| text.split('.').map(|label| label.as_bytes().into()).collect();
    let look_up = move |table, address| {
        assert_eq!(table, 5);
        let left = (address == known).then_some(Duration::from_secs(9));
        let learnt = LearntAddress { address, name: (name("example.com"), 1), left };
        Ok(if address == other { vec![] } else { vec![learnt] })
    };
    let mut observing = Observing::by([context]);
    observing.observer = Observer::new(
        "n1".into(),
        Denials::default(),
        FlowHistory::new("n1".into(), ROOM),
        NamesOfAddress::new(look_up),
    );
    for (outcome, to, expected, names, expired) in [
        (Outcome::Allowed, known, "allowed allowed x/a -> 198.51.100.7 [x/web[1]]", true, false),
        // It has ended since.
        (Outcome::Allowed, ended, "allowed allowed x/a -> 198.51.100.8 [x/web[1]]", true, false),
        (Outcome::Denied, ended, "denied denied x/a -> 198.51.100.8 [x/web[]]", true, true),
        // It was learnt since.
        (Outcome::Denied, known, "denied denied x/a -> 198.51.100.7 [x/web[]]", false, false),
        (Outcome::Denied, other, "denied denied x/a -> 198.51.100.9 [x/web[]]", false, false),
        (Outcome::Allowed, other, "allowed allowed x/a -> 198.51.100.9 [] ?", false, false),
    ] {
        let seen = observing.seen(event(Direction::Egress, outcome, a, to)).expect("it is seen");
        assert_eq!(summary(&seen), expected);
        let record = FlowRecord::from(&*seen);
        let shown: &[&str] = if names { &["*.example.com"] } else { &[] };
        assert_eq!(
            (&record.names[..], record.name_expired),
            (&*shown.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), expired),
            "{expected}"
        );
        let is_missing = outcome == Outcome::Denied && to == other;
        assert_eq!(record.name_missing, is_missing.then_some(MissingName::NameUnlearnt), "{expected}");
    }
}
