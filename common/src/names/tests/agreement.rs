//! The walk and the naive parser say the same of all messages.

use std::{env, eprintln};

use super::{Next, generate, generate::Numbers, naive, patterns::Patterns, walk};

/// A million messages take some seconds with optimisation, of which debug builds have none.
const MESSAGES: u64 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

fn patterns() -> Patterns {
    Patterns::new(["api.example.com", "*.example.com", "good.test", "*.good.test", "com", "x.svc", "*.cdn"])
}

#[test]
fn a_walk_learns_what_a_naive_parser_does() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PODGATE_SEED").unwrap_or(20_260_501);
    let messages = number("PODGATE_MESSAGES").unwrap_or(MESSAGES);
    eprintln!("PODGATE_SEED={seed}, {messages} messages");
    let patterns = patterns();
    let (mut learnt, mut malformed, mut refused) = (0, 0, 0);
    for at in 0..messages {
        let message = generate::message(&mut Numbers(seed.wrapping_add(at << 20)));
        let expected = naive::read(&message, &patterns);
        let (end, entries, not_opened, _) = walk(&message, &patterns);
        assert_eq!((end, entries, not_opened), expected, "message {at}: {message:02x?}");
        learnt += u64::from(!expected.1.is_empty());
        malformed += u64::from(expected.0 == Next::Malformed);
        refused += u64::from(expected.2 != 0);
    }
    // The generator makes enough of each.
    for (what, count) in [("learnt", learnt), ("malformed", malformed), ("refused", refused)] {
        assert!(count > messages / 50, "{what}: {count} of {messages}");
    }
}
