//! What a matrix says of one pair of pods, and the row of a source.
//!
//! Inside, verdicts are an enum; the JSON contract and the text for a terminal write a character for each.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// What a cell of the matrix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairVerdict {
    /// Over every family that both pods have.
    Allowed,
    /// Over none.
    Denied,
    /// The destination has no port of this name.
    NoPort,
}

/// The verdicts of one source, in the order of [`Matrix::pods`](super::Matrix::pods). Its JSON form is a
/// string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictRow(pub Vec<PairVerdict>);

impl PairVerdict {
    const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::NoPort];

    /// The letter that stands for it in text and JSON.
    pub const fn character(self) -> char {
        match self {
            Self::Allowed => '.',
            Self::Denied => 'X',
            Self::NoPort => '-',
        }
    }
}

impl VerdictRow {
    /// How many destinations the source reaches.
    pub fn allowed(&self) -> usize {
        self.0.iter().filter(|verdict| **verdict == PairVerdict::Allowed).count()
    }
}

impl fmt::Display for VerdictRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(|verdict| verdict.character()).collect::<String>())
    }
}

impl Serialize for VerdictRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The first character that stands for no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVerdict(pub char);

impl FromStr for VerdictRow {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, UnknownVerdict> {
        let verdict = |character| {
            let known = PairVerdict::ALL.into_iter().find(|verdict| verdict.character() == character);
            known.ok_or(UnknownVerdict(character))
        };
        text.chars().map(verdict).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_character_for_each_verdict() {
        let row = VerdictRow(PairVerdict::ALL.into());
        assert_eq!((row.to_string().as_str(), ".X-".parse()), (".X-", Ok(row)));
        assert_eq!("..?".parse::<VerdictRow>(), Err(UnknownVerdict('?')));
    }
}
