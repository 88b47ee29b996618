//! Names of the DNS as rules write them: one name, or with `*.` all names below one.

use std::fmt;

use podgate_common::MAX_PATTERN_LABELS;

use super::Name;

/// `api.example.com`, or `*.example.com`: one label or more before `example.com`, never that name itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    is_wildcard: bool,
    /// In lower case, without a dot at its end.
    name: Name,
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
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
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
        Ok(Self { is_wildcard, name: name.to_ascii_lowercase().into() })
    }

    /// Whether it stands for the names below one, and not for that one.
    pub const fn is_wildcard(&self) -> bool {
        self.is_wildcard
    }

    /// The labels behind the `*.`, the leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.name.split('.').map(str::as_bytes)
    }

    /// Whether it matches a name, given in lower case without a dot at its end.
    pub fn matches(&self, name: &str) -> bool {
        match name.strip_suffix(self.name.as_str()) {
            Some("") => !self.is_wildcard,
            Some(before) => self.is_wildcard && before.len() > 1 && before.ends_with('.'),
            None => false,
        }
    }

    /// Whether it matches the names that end in these labels, given in lower case. `has_more`: they have
    /// others before them.
    pub fn matches_names_below(&self, labels: &[Box<[u8]>], has_more: bool) -> bool {
        let own = self.labels().count();
        let Some(before) = labels.len().checked_sub(own) else { return false };
        let is_same = labels[before..].iter().map(|label| &**label).eq(self.labels());
        is_same && self.is_wildcard == (before > 0 || has_more)
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
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(f, "{wildcard}{}", self.name)
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
    fn names_are_matched_by_their_last_labels() {
        let labels = |name: &str| name.split('.').map(|label| label.as_bytes().into()).collect::<Vec<_>>();
        for (text, name, has_more, expected) in [
            ("a.test", "a.test", false, true),
            ("a.test", "a.test", true, false),
            ("*.test", "a.test", false, true),
            ("*.a.test", "a.test", false, false),
            ("*.a.test", "a.test", true, true),
            ("b.a.test", "a.test", true, false),
            ("*.test", "a.best", true, false),
        ] {
            let found = pattern(text).matches_names_below(&labels(name), has_more);
            assert_eq!(found, expected, "{text} of {name}, {has_more}");
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
