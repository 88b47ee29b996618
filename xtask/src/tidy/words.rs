//! Words that this project alone would use in their sense. The field has a word for each; a reader should not
//! have to learn another one.
//!
//! In: the text of a file, names and sentences alike. Out: the lines that hold such a word, with the one to
//! use.

use super::source::Found;

/// Beginnings of house words, and what to write instead. In two parts, so that this file does not hold them.
const HOUSE_WORDS: [(&str, &str); 8] = [
    (concat!("jud", "g"), "evaluate, decide"),
    (concat!("tal", "ly"), "flow counter"),
    (concat!("tal", "lies"), "flow counters"),
    (concat!("un", "told"), "lost, not reported"),
    (concat!("an", "ew"), "again"),
    (concat!("inq", "uir"), "query, kernel check"),
    (concat!("test", "imon"), "reply"),
    (concat!("entr", "ance"), "service port"),
];

pub(super) fn check(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_ascii_lowercase();
        for (word, instead) in HOUSE_WORDS {
            if lower.match_indices(word).any(|(at, _)| begins(line, at)) {
                found.push((index + 1, format!("house word `{word}`: write {instead}")));
            }
        }
    }
    found
}

/// Whether a word begins here, also one within a name such as `NewWord` or `new_word`.
fn begins(line: &str, at: usize) -> bool {
    let is_upper = line[at..].starts_with(|c: char| c.is_ascii_uppercase());
    let after_lower = line[..at].ends_with(|c: char| c.is_ascii_lowercase());
    let after_letter = line[..at].ends_with(char::is_alphabetic);
    !after_letter || is_upper && after_lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn house_words_are_found_in_sentences_and_in_names() {
        for (line, expected) in [
            (concat!("// It is jud", "ged twice."), 1),
            (concat!("struct FlowTal", "ly;"), 1),
            (concat!("const INQ", "UIRIES: usize = 1;"), 1),
            ("// It is totally untouched, and the preju\u{64}ice of others is theirs.", 0),
            ("let mane_wide = clean_ew;", 0),
        ] {
            assert_eq!(check(line).len(), expected, "{line}");
        }
    }
}
