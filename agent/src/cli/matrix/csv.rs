//! The matrix and differences as comma-separated values (RFC 4180): a header, then a line for each pair and
//! port.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use podgate_core::matrix::{Difference, Matrix, NameMatrix, PairVerdict};

pub(super) fn write_matrix(matrix: &Matrix, out: &mut dyn Write) -> io::Result<()> {
    record(out, ["port", "source", "destination", "verdict"])?;
    for (port, rows) in &matrix.ports {
        let port = port.to_string();
        for (source, row) in rows {
            for (destination, verdict) in matrix.pods.iter().zip(&row.0) {
                record(out, [&port, source, destination, word(*verdict)])?;
            }
        }
    }
    Ok(())
}

pub(super) fn write_names(NameMatrix { names, ports }: &NameMatrix, out: &mut dyn Write) -> io::Result<()> {
    record(out, ["port", "source", "name", "verdict"])?;
    for (port, rows) in ports {
        let port = port.to_string();
        for (source, row) in rows {
            for (name, verdict) in names.iter().zip(&row.0) {
                record(out, [&port, source, name, word(*verdict)])?;
            }
        }
    }
    Ok(())
}

const fn word(verdict: PairVerdict) -> &'static str {
    match verdict {
        PairVerdict::Allowed => "allow",
        PairVerdict::Denied => "deny",
        PairVerdict::NoPort => "no-port",
    }
}

pub(super) fn write_difference(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    record(out, ["port", "source", "destination", "change"])?;
    for (pairs, change) in [(&difference.opened, "opens"), (&difference.closed, "closes")] {
        for pair in pairs {
            record(out, [&pair.port.to_string(), &pair.from, &pair.to, change])?;
        }
    }
    Ok(())
}

fn record(out: &mut dyn Write, fields: [&str; 4]) -> io::Result<()> {
    let [first, second, third, fourth] = fields.map(field);
    write!(out, "{first},{second},{third},{fourth}\r\n")
}

/// Names of manifests may hold anything.
fn field(text: &str) -> Cow<'_, str> {
    if text.contains(['"', ',', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use podgate_core::{matrix::Pair, model::Name};

    #[test]
    fn a_line_for_each_pair_with_odd_names_in_quotes() {
        let rows =
            [("x/a", ".X"), ("x/b, \"c\"", "-.")].map(|(pod, row)| (Name::from(pod), row.parse().unwrap()));
        let rows = BTreeMap::from(rows);
        let matrix = Matrix {
            pods: rows.keys().cloned().collect(),
            ports: BTreeMap::from([("TCP/80".parse().unwrap(), rows)]),
        };
        let mut out = Vec::new();
        write_matrix(&matrix, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap().split("\r\n").collect::<Vec<_>>(),
            [
                "port,source,destination,verdict",
                "TCP/80,x/a,x/a,allow",
                "TCP/80,x/a,\"x/b, \"\"c\"\"\",deny",
                "TCP/80,\"x/b, \"\"c\"\"\",x/a,no-port",
                "TCP/80,\"x/b, \"\"c\"\"\",\"x/b, \"\"c\"\"\",allow",
                "",
            ]
        );
    }

    #[test]
    fn a_difference_names_what_each_pair_does() {
        let pair =
            |from: &str| Pair { port: "UDP/dns".parse().unwrap(), from: from.into(), to: "x/b".into() };
        let (opened, closed) = (vec![pair("x/a")], vec![pair("x/c")]);
        let mut out = Vec::new();
        write_difference(&Difference { opened, closed, ..Difference::default() }, &mut out).unwrap();
        let expected =
            "port,source,destination,change\r\nUDP/dns,x/a,x/b,opens\r\nUDP/dns,x/c,x/b,closes\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
