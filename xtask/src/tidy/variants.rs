//! Lists of variants: `ALL` of an enum names each of them. The compiler finds a `match` that lacks a new
//! variant, and no list that does.
//!
//! In: a Rust file of the product, in rustfmt's form. Out: the lists that are shorter than their enum, where
//! both are in the file. One that is longer names a variant by each of its contents.

use super::source::without_tests;

/// Line from 1, and what is wrong.
pub(super) fn lists(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = without_tests(text).lines().collect();
    let mut subject = None;
    let mut problems = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(implemented) = line.strip_prefix("impl ") {
            subject = implemented.strip_suffix(" {");
        }
        let length = line.split_once("const ALL: [Self; ").and_then(|(_, rest)| rest.split_once(']'));
        let length = length.and_then(|(length, _)| length.parse::<usize>().ok());
        let (Some(name), Some(length)) = (subject, length) else { continue };
        let variants = variants(&lines, name);
        if length < variants {
            problems.push((index + 1, format!("`ALL` has {length} of {variants} variants of `{name}`")));
        }
    }
    problems
}

/// How many variants the enum of this name has; 0 when it is not here.
fn variants(lines: &[&str], name: &str) -> usize {
    let head = format!("enum {name} {{");
    let body = lines.iter().skip_while(|line| line.starts_with(' ') || !line.ends_with(&head)).skip(1);
    let body = body.take_while(|line| **line != "}");
    let outermost = body.filter_map(|line| line.strip_prefix("    "));
    outermost.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_lacks_a_variant_is_reported() {
        let text = "\
enum Other {
    X,
}

/// A side.
pub(crate) enum Side {
    /// Left.
    #[default]
    Left = 1,
    Right(u8),
    Both {
        Any: u8,
    },
}

impl Side {
    pub const ALL: [Self; 2] = [Self::Left, Self::Right(1)];
}

impl Other {
    const ALL: [Self; 1] = [Self::X];
}

impl Elsewhere {
    const ALL: [Self; 7] = elsewhere();
}
";
        assert_eq!(lists(text), [(17, "`ALL` has 2 of 3 variants of `Side`".to_owned())]);
        assert_eq!(lists(&text.replace("Self; 2", "Self; 3")), []);
    }
}
