//! The syntax of names, labels and port names.
//!
//! In: text that an object or a user wrote. Out: whether Kubernetes takes it, and if not, which rule it
//! breaks. The rules are those of Kubernetes' `apimachinery/pkg/util/validation`.

/// `Err` holds what follows "`x` is not ...".
pub type Syntax = Result<(), &'static str>;

/// A DNS label (RFC 1123): the name of a namespace or a service.
pub fn dns_label(text: &str) -> Syntax {
    match text.len() <= 63 && is_dns_label(text) {
        true => Ok(()),
        false => Err("a DNS label (a-z, 0-9 and '-', at most 63 characters)"),
    }
}

/// A DNS subdomain (RFC 1123): the name of most objects.
pub fn dns_subdomain(text: &str) -> Syntax {
    match text.len() <= 253 && text.split('.').all(is_dns_label) {
        true => Ok(()),
        false => Err("a DNS name (a-z, 0-9, '-' and '.', at most 253 characters)"),
    }
}

/// A name of at most 63 characters, with or without `prefix/`.
pub fn label_key(text: &str) -> Syntax {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if prefix.is_some_and(|prefix| dns_subdomain(prefix).is_err()) {
        return Err("a label key: what stands before '/' must be a DNS name");
    }
    match is_label_word(name) {
        true => Ok(()),
        false => Err("a label key (letters, digits, '-', '_' and '.', 1 to 63 characters)"),
    }
}

/// The value of a label.
pub fn label_value(text: &str) -> Syntax {
    match text.is_empty() || is_label_word(text) {
        true => Ok(()),
        false => Err("a label value (letters, digits, '-', '_' and '.', at most 63 characters)"),
    }
}

/// `IsValidPortName`.
pub fn port_name(text: &str) -> Syntax {
    if text.len() > 15 {
        return Err("a port name: it is longer than 15 characters");
    }
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err("a port name: only a-z, 0-9 and '-' are allowed");
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err("a port name: it has no letter");
    }
    if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
        return Err("a port name: '-' must stand single between letters or digits");
    }
    Ok(())
}

/// Without the limit of length.
fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(inner)
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=63).contains(&bytes.len())
        && [bytes.first(), bytes.last()].into_iter().flatten().all(u8::is_ascii_alphanumeric)
        && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(syntax: fn(&str) -> Syntax, good: &[&str], bad: &[&str], longest: usize) {
        for text in good {
            assert_eq!(syntax(text), Ok(()), "{text:?}");
        }
        for text in bad {
            assert!(syntax(text).is_err(), "{text:?}");
        }
        assert_eq!(syntax(&"a".repeat(longest)), Ok(()));
        assert!(syntax(&"a".repeat(longest + 1)).is_err());
    }

    #[test]
    fn names_follow_dns() {
        check(dns_label, &["a", "a-b", "1"], &["", "a.b", "A", "-a", "a-", "a_b", "é"], 63);
        check(dns_subdomain, &["a", "a.b-c.1"], &["", "a..b", ".a", "a.", "a.-b", "a_b", "A"], 253);
    }

    #[test]
    fn labels_have_a_prefixed_key_and_a_value_that_may_be_empty() {
        let bad_keys = ["", "/a", "a/", "a/b/c", "A.io/x", "-a", "a.", "a b"];
        check(label_key, &["app", "A_b.c-d", "k8s.io/App", "9"], &bad_keys, 63);
        check(label_value, &["", "A_b.c-d", "9"], &["a b", "a/b", "_a", "a.", "é"], 63);
    }

    #[test]
    fn port_names_have_a_letter_and_single_dashes() {
        let bad = ["", "80", "HTTP", "a--b", "-a", "a-", "a_b", "é"];
        check(port_name, &["http", "a-1", "8a", "1-a-2"], &bad, 15);
    }
}
