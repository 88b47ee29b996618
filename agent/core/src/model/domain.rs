//! Names of the DNS as rules write them: one name, or with `*.` names below one.

use std::fmt;

use podgate_common::MAX_PATTERN_LABELS;

use super::Name;

/// `api.example.com`, or `*.example.com`: labels before `example.com`, never that name itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    depth: Depth,
    /// In lower case, without a dot at its end.
    name: Name,
}

/// How many labels stand before a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Depth {
    None,
    /// One or more, as `*.` means.
    Some,
    /// One, as `*.` means in rules of GKE's.
    One,
}

impl DomainPattern {
    /// The longest name without the dot at its end (RFC 1035, 2.3.4).
    const MAX_LENGTH: usize = 253;
    const MAX_LABEL: usize = 63;

    /// Upper and lower case are the same, and a dot at the end does not count.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let (depth, name) = match text.strip_prefix("*.") {
            Some(name) => (Depth::Some, name),
            None => (Depth::None, text),
        };
        if name.is_empty() || text.len() > Self::MAX_LENGTH {
            return Err("is no name of 1 to 253 bytes");
        }
        if name.split('.').count() > MAX_PATTERN_LABELS {
            return Err("has more than 16 labels");
        }
        for label in name.split('.') {
            if label.contains('*') {
                return Err("has a * elsewhere than as its first label");
            }
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if label.is_empty() || label.len() > Self::MAX_LABEL || !label.bytes().all(is_known) {
                return Err("has a label that is not 1 to 63 letters, digits, - or _");
            }
        }
        Ok(Self { depth, name: name.to_ascii_lowercase().into() })
    }

    /// The same, where `*.` stands for one label.
    ///
    /// # Errors
    ///
    /// As of [`Self::parse`].
    pub fn parse_one_label(text: &str) -> Result<Self, &'static str> {
        let Self { depth, name } = Self::parse(text)?;
        Ok(Self { depth: if depth == Depth::Some { Depth::One } else { depth }, name })
    }

    /// Whether it stands for names below one, and not for that one.
    pub const fn is_wildcard(&self) -> bool {
        matches!(self.depth, Depth::Some | Depth::One)
    }

    /// Whether it matches names with so many labels before its own; of 2 and more they are alike.
    pub const fn matches_before(&self, labels: usize) -> bool {
        match self.depth {
            Depth::None => labels == 0,
            Depth::Some => labels != 0,
            Depth::One => labels == 1,
        }
    }

    /// The labels behind the `*.`, the leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.name.split('.').map(str::as_bytes)
    }

    /// The name behind the `*.`, and each that it is below.
    pub fn suffixes(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.name.as_str()), |name| Some(name.split_once('.')?.1))
    }

    /// Whether it matches a name, given in lower case without a dot at its end.
    pub fn matches(&self, name: &str) -> bool {
        match name.strip_suffix(self.name.as_str()) {
            Some("") => self.matches_before(0),
            Some(before) => match before.strip_suffix('.') {
                None | Some("") => false,
                Some(labels) => self.matches_before(labels.split('.').count()),
            },
            None => false,
        }
    }

    /// Whether it matches the names that end in these labels, given in lower case, and have `left` others
    /// before them: 2 of 2 and more.
    pub fn matches_names_below(&self, labels: &[Box<[u8]>], left: u32) -> bool {
        let own = self.labels().count();
        let Some(before) = labels.len().checked_sub(own) else { return false };
        let is_same = labels[before..].iter().map(|label| &**label).eq(self.labels());
        is_same && self.matches_before(before + left as usize)
    }
}

/// One name, as it is asked about: in lower case, without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(DomainPattern);

impl DomainName {
    /// # Errors
    ///
    /// What is wrong with it, as with a pattern; a wildcard is no name.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let pattern = DomainPattern::parse(text)?;
        if pattern.is_wildcard() { Err("stands for many names") } else { Ok(Self(pattern)) }
    }

    /// As rules match it.
    pub fn as_str(&self) -> &str {
        &self.0.name
    }

    /// The leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.labels()
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.depth {
            Depth::None => write!(f, "{}", self.name),
            Depth::Some => write!(f, "*.{}", self.name),
            Depth::One => write!(f, "*.{} (one label)", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> DomainPattern {
        DomainPattern::parse(text).unwrap()
    }

    #[test]
    fn case_and_a_dot_at_the_end_do_not_count() {
        assert_eq!(pattern("API.Example.com."), pattern("api.example.com"));
        assert_eq!(pattern("*.Example.com.").to_string(), "*.example.com");
        assert_ne!(pattern("*.example.com"), pattern("example.com"));
    }

    #[test]
    fn a_wildcard_matches_one_label_or_more_and_never_the_name_behind_it() {
        let wildcard = pattern("*.example.com");
        assert!(wildcard.matches("a.example.com") && wildcard.matches("a.b.example.com"));
        for other in ["example.com", ".example.com", "notexample.com", "example.com.evil.test", "com"] {
            assert!(!wildcard.matches(other), "{other}");
        }
        let exact = pattern("example.com");
        assert!(exact.matches("example.com") && !exact.matches("a.example.com"));
    }

    #[test]
    fn a_wildcard_of_one_label_matches_no_deeper_names() {
        let one = DomainPattern::parse_one_label("*.Example.com.").unwrap();
        assert!(one.matches("a.example.com") && one != pattern("*.example.com"));
        for other in ["a.b.example.com", "example.com", ".example.com", "notexample.com"] {
            assert!(!one.matches(other), "{other}");
        }
        assert_eq!(DomainPattern::parse_one_label("example.com"), Ok(pattern("example.com")));
        assert!(DomainPattern::parse_one_label("*.*.example.com").is_err());
    }

    #[test]
    fn names_are_matched_by_their_last_labels() {
        let labels = |name: &str| name.split('.').map(|label| label.as_bytes().into()).collect::<Vec<_>>();
        for (text, name, left, expected) in [
            ("a.test", "a.test", 0, true),
            ("a.test", "a.test", 1, false),
            ("*.test", "a.test", 0, true),
            ("*.a.test", "a.test", 0, false),
            ("*.a.test", "a.test", 1, true),
            ("*.a.test", "a.test", 2, true),
            ("b.a.test", "a.test", 1, false),
            ("*.test", "a.best", 1, false),
        ] {
            let found = pattern(text).matches_names_below(&labels(name), left);
            assert_eq!(found, expected, "{text} of {name}, {left}");
        }
        let one = DomainPattern::parse_one_label("*.test").unwrap();
        for (name, left, expected) in [
            ("test", 0, false),
            ("test", 1, true),
            ("test", 2, false),
            ("a.test", 0, true),
            ("a.test", 1, false),
        ] {
            assert_eq!(one.matches_names_below(&labels(name), left), expected, "{one} of {name}, {left}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = [&["a"; 17].join(".")[..], &"a".repeat(64), &["abc"; 64].join(".")].map(str::to_owned);
        for text in ["", ".", "*", "*.", "a..b", "a.*.b", "*a.b", "**.a", "a b", "a/b", "é.test", ".a"] {
            assert!(DomainPattern::parse(text).is_err(), "{text}");
        }
        assert!(long.iter().all(|text| DomainPattern::parse(text).is_err()));
        assert!(DomainPattern::parse(&["a"; 16].join(".")).is_ok());
    }
}
