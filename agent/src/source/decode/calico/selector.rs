//! The text of Calico's selectors.
//!
//! In: text, at most [`LONGEST`] bytes. Out: an expression, or what is wrong and at which character. The
//! operators bind as usual: `!` first, then `&&`, then `||`. Text in quotes has no escapes.

use podgate_core::model::{LabelExpression, LabelTest, LabelValues, Name, label_keys};

use crate::source::decode::intern::NameInterner;

/// Bytes of a selector.
pub(super) const LONGEST: usize = 1_024;

/// How deep parentheses may nest.
const DEPTH: usize = 64;

/// What `all()`, `global()` and keys of labels mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Pods and network sets, with all their labels.
    Endpoints,
    /// The namespaces that they are in, or none.
    Namespaces,
    /// The service accounts of pods.
    ServiceAccounts,
}

/// An expression; empty text matches everything.
pub(super) fn parse(text: &str, of: Of, names: &mut NameInterner) -> Result<LabelExpression, String> {
    if text.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} bytes"));
    }
    let mut parser = Parser { text, at: 0, of, depth: 0, names };
    if parser.rest().is_empty() {
        return Ok(LabelExpression::EVERYTHING);
    }
    let expression = parser.any()?;
    match parser.rest() {
        "" => Ok(expression),
        _ => Err(parser.expected("&&, || or the end")),
    }
}

struct Parser<'t, 'n> {
    text: &'t str,
    /// In bytes.
    at: usize,
    of: Of,
    depth: usize,
    names: &'n mut NameInterner,
}

impl<'t> Parser<'t, '_> {
    /// What comes after blanks.
    fn rest(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start_matches([' ', '\t']);
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn take(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn expected(&mut self, what: &str) -> String {
        let rest = self.rest();
        let place = 1 + self.text[..self.at].chars().count();
        let found = rest.chars().next().map_or_else(|| "its end".into(), |found| format!("{found:?}"));
        format!("{what} is expected at character {place}, not {found}")
    }

    fn any(&mut self) -> Result<LabelExpression, String> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { LabelExpression::Any(parts) })
    }

    fn all(&mut self) -> Result<LabelExpression, String> {
        let mut parts = vec![self.operation()?];
        while self.take("&&") {
            parts.push(self.operation()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { LabelExpression::All(parts) })
    }

    fn operation(&mut self) -> Result<LabelExpression, String> {
        let mut is_negated = false;
        while self.take("!") {
            is_negated = !is_negated;
        }
        let operation = self.plain_operation()?;
        Ok(if is_negated { LabelExpression::Not(Box::new(operation)) } else { operation })
    }

    fn plain_operation(&mut self) -> Result<LabelExpression, String> {
        if self.take("(") {
            if self.depth == DEPTH {
                return Err(format!("its parentheses nest more than {DEPTH} deep"));
            }
            self.depth += 1;
            let inner = self.any()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inner) } else { Err(self.expected("')'")) };
        }
        if self.take("has(") {
            let key = self.key()?;
            return match self.take(")") {
                true => Ok(LabelExpression::Label(key, LabelTest::Exists)),
                false => Err(self.expected("')'")),
            };
        }
        for (word, expression) in [("all(", self.of.all()), ("global(", self.of.global())] {
            if self.take(word) {
                return if self.take(")") { Ok(expression) } else { Err(self.expected("')'")) };
            }
        }
        let key = self.key()?;
        let test = self.test()?;
        Ok(LabelExpression::Label(key, test))
    }

    fn test(&mut self) -> Result<LabelTest, String> {
        let of_one = |value: Name| LabelValues::from([value]);
        if self.take("==") {
            return self.value().map(of_one).map(LabelTest::In);
        }
        if self.take("!=") {
            return self.value().map(of_one).map(LabelTest::NotIn);
        }
        let start = self.at;
        if self.take("not") && self.take("in") {
            return self.values().map(LabelTest::NotIn);
        }
        self.at = start;
        if self.take("in") {
            return self.values().map(LabelTest::In);
        }
        if self.take("contains") {
            return self.value().map(LabelTest::Contains);
        }
        for (word, test) in
            [("starts", LabelTest::StartsWith as fn(Name) -> LabelTest), ("ends", LabelTest::EndsWith)]
        {
            if self.take(word) {
                return if self.take("with") {
                    self.value().map(test)
                } else {
                    Err(self.expected("\"with\""))
                };
            }
        }
        Err(self.expected("==, !=, in, not in, contains, starts with or ends with"))
    }

    fn values(&mut self) -> Result<LabelValues, String> {
        if !self.take("{") {
            return Err(self.expected("'{'"));
        }
        let mut values = Vec::new();
        while self.rest().starts_with(['\'', '"']) {
            values.push(self.value()?);
            if !self.take(",") {
                break;
            }
        }
        match self.take("}") {
            true => Ok(values.into_iter().collect()),
            false => Err(self.expected("'}'")),
        }
    }

    fn value(&mut self) -> Result<Name, String> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|first| ['\'', '"'].contains(first)) else {
            return Err(self.expected("a text in quotes"));
        };
        let inner = &rest[1..];
        let Some(end) = inner.find(quote) else {
            return Err(self.expected("a text with its closing quote"));
        };
        self.at += end + 2;
        Ok(self.names.name(&inner[..end]))
    }

    fn key(&mut self) -> Result<Name, String> {
        let is_of_key = |character: char| character.is_ascii_alphanumeric() || "_./-".contains(character);
        let rest = self.rest();
        let length = rest.find(|character| !is_of_key(character)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.expected("a label"));
        }
        self.at += length;
        Ok(self.names.name(&format!("{}{}", self.of.prefix(), &rest[..length])))
    }
}

impl Of {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Endpoints => "",
            Self::Namespaces => label_keys::NAMESPACE_PREFIX,
            Self::ServiceAccounts => label_keys::ACCOUNT_PREFIX,
        }
    }

    fn all(self) -> LabelExpression {
        match self {
            Self::Endpoints | Self::ServiceAccounts => LabelExpression::EVERYTHING,
            // What is in a namespace, whichever.
            Self::Namespaces => LabelExpression::Label(label_keys::NAMESPACE.into(), LabelTest::Exists),
        }
    }

    fn global(self) -> LabelExpression {
        match self {
            Self::Endpoints | Self::ServiceAccounts => LabelExpression::EVERYTHING,
            Self::Namespaces => LabelExpression::Not(Box::new(self.all())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample};

    use super::*;

    fn read(text: &str) -> Result<LabelExpression, String> {
        parse(text, Of::Endpoints, &mut NameInterner::default())
    }

    #[test]
    fn operators_bind_as_calico_binds_them() {
        for (text, expected) in [
            ("", "all()"),
            (" all() ", "all()"),
            ("a == 'b'", "a == 'b'"),
            ("a=='b'&&!has( c )||d != \"it's\"", "(a == 'b' && !(has(c))) || d != \"it's\""),
            ("!!a in { 'x' , \"y\", }", "a in {'x', 'y'}"),
            (
                "a not in {'x'} && (b starts with 'p' || c ends  with 's')",
                "a != 'x' && (b starts with 'p' || c ends with 's')",
            ),
            ("k8s.io/App-1_x contains ''", "k8s.io/App-1_x contains ''"),
            ("a in {}", "a in {}"),
        ] {
            assert_eq!(read(text).map(|it| it.to_string()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("a starts 'x'", "\"with\" is expected at character 10, not '\\''"),
            ("a == b", "a text in quotes is expected at character 6, not 'b'"),
            ("a == 'b", "a text with its closing quote is expected at character 6, not '\\''"),
            ("ü", "a label is expected at character 1, not 'ü'"),
            ("has(a", "')' is expected at character 6, not its end"),
            ("(a == 'b'", "')' is expected at character 10, not its end"),
            ("a == 'b' c == 'd'", "&&, || or the end is expected at character 10, not 'c'"),
            ("a in 'b'", "'{' is expected at character 6, not '\\''"),
            ("all() &&", "a label is expected at character 9, not its end"),
        ] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text}");
        }
        let deep = format!("{}has(a){}", "(".repeat(65), ")".repeat(65));
        assert_eq!(read(&deep), Err("its parentheses nest more than 64 deep".into()));
        assert_eq!(read(&"a".repeat(1_025)), Err("it is longer than 1024 bytes".into()));
    }

    #[test]
    fn selectors_of_namespaces_speak_of_their_labels_and_of_being_in_one() {
        let mut names = NameInterner::default();
        let mut words = |text| parse(text, Of::Namespaces, &mut names).unwrap().to_string();
        assert_eq!(words("team == 'a'"), "pcns.team == 'a'");
        assert_eq!(words("all()"), "has(projectcalico.org/namespace)");
        assert_eq!(words("global()"), "!(has(projectcalico.org/namespace))");
    }

    fn expression() -> impl Strategy<Value = LabelExpression> {
        let key = || sample::select(&["a", "b/c", "d.e_f-1"][..]).prop_map(Name::from);
        let value = || sample::select(&["", "x", "y z", "it's", "!&|(){}"][..]).prop_map(Name::from);
        let values = || vec(value(), 0..3).prop_map(LabelValues::from_iter);
        let test = prop_oneof![
            Just(LabelTest::Exists),
            values().prop_map(LabelTest::In),
            values().prop_map(LabelTest::NotIn),
            value().prop_map(LabelTest::Contains),
            value().prop_map(LabelTest::StartsWith),
            value().prop_map(LabelTest::EndsWith),
        ];
        let leaf = (key(), test).prop_map(|(key, test)| LabelExpression::Label(key, test));
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 2..4).prop_map(LabelExpression::All),
                vec(inner.clone(), 2..4).prop_map(LabelExpression::Any),
                inner.prop_map(|inner| LabelExpression::Not(Box::new(inner))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(expression in expression()) {
            let text = expression.to_string();
            let again = read(&text).map(|again| again.to_string());
            prop_assert_eq!(again, Ok(text));
        }

        #[test]
        fn no_text_is_too_odd(text in "[a(){}'\" !=&|,]{0,40}|.{0,40}") {
            let _expression_or_fault = read(&text);
        }
    }
}
