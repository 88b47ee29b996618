//! Additional request headers, such as a token: from a file, or from OpenTelemetry's variable.

use std::{
    env, fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};

use super::attributes::pairs;

/// OpenTelemetry's variable: `name=value,name=value`, with `%` as in URLs.
const VARIABLE: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Largest size of the file in bytes.
const LONGEST: u64 = 64 << 10;

/// The source of the headers. A file is read again for each request: a token may be replaced.
#[derive(Clone)]
pub(super) enum Headers {
    File(PathBuf),
    Fixed(HeaderMap),
}

impl Headers {
    /// Reads the headers of `file`, or else of the environment.
    ///
    /// # Errors
    ///
    /// When the file or the variable cannot be read or parsed.
    pub(super) fn new(file: Option<PathBuf>) -> Result<Self> {
        match file {
            Some(file) => {
                of_file(&file)?;
                Ok(Self::File(file))
            }
            None => {
                let text = env::var_os(VARIABLE).unwrap_or_default();
                let text = text.to_str().context("it is not UTF-8").context(VARIABLE)?;
                of_variable(text).map(Self::Fixed).context(VARIABLE)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Fixed(headers) => headers.is_empty(),
        }
    }

    pub(super) fn read(&self) -> Result<HeaderMap> {
        match self {
            Self::File(file) => of_file(file),
            Self::Fixed(headers) => Ok(headers.clone()),
        }
    }
}

/// Parses lines of `NAME: VALUE`; empty lines are ignored.
fn of_file(file: &Path) -> Result<HeaderMap> {
    let read = || {
        let mut text = String::new();
        fs::File::open(file)?.take(LONGEST + 1).read_to_string(&mut text)?;
        ensure!(text.len() as u64 <= LONGEST, "it has more than {LONGEST} bytes");
        of_lines(&text)
    };
    read().with_context(|| format!("headers for the collector: {}", file.display()))
}

/// Values are secret: no error message contains one.
fn of_lines(text: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("line {}", index + 1);
        let (name, value) = line.split_once(':').context("not NAME: VALUE").with_context(place)?;
        add(&mut headers, name.trim(), value.trim()).with_context(place)?;
    }
    Ok(headers)
}

fn of_variable(text: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text)? {
        add(&mut headers, &name, &value)?;
    }
    Ok(headers)
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let name: HeaderName = name.parse().context("this is no name of a header")?;
    if [CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING].contains(&name) {
        bail!("{name} is not yours to set");
    }
    let mut value =
        HeaderValue::from_str(value).ok().with_context(|| format!("{name} has no value of a header"))?;
    value.set_sensitive(true);
    headers.append(name, value);
    Ok(())
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Fixed(headers) => f.debug_tuple("Fixed").field(&headers.len()).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_of_a_file_that_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        fs::write(&path, "Authorization: Bearer a:b\n\nX-Scope-OrgID: team \n").unwrap();
        let headers = Headers::new(Some(path.clone())).unwrap();
        let read = headers.read().unwrap();
        assert_eq!(
            (&read["authorization"], &read["x-scope-orgid"]),
            (&"Bearer a:b".parse().unwrap(), &"team".parse().unwrap())
        );
        fs::write(&path, "Authorization: Bearer c").unwrap();
        assert_eq!(headers.read().unwrap()["authorization"], "Bearer c");
        fs::write(&path, vec![b'\n'; 70_000]).unwrap();
        assert!(format!("{:#}", headers.read().unwrap_err()).contains("bytes"));
        fs::remove_file(&path).unwrap();
        assert!(headers.read().is_err());
    }

    #[test]
    fn what_is_no_header_is_named_without_its_value() {
        for (text, complaint) in [
            ("Authorization secret", "line 1: not NAME: VALUE"),
            ("\na b: secret", "line 2: this is no name of a header"),
            ("Host: secret", "line 1: host is not yours to set"),
            ("a: secret\u{1}", "line 1: a has no value of a header"),
        ] {
            let refused = format!("{:#}", of_lines(text).expect_err(text));
            assert!(refused.starts_with(complaint) && !refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn the_variable_has_pairs() {
        let headers = of_variable("authorization=Basic%20YTpi , x=1").unwrap();
        assert_eq!(
            (&headers["authorization"], &headers["x"]),
            (&"Basic YTpi".parse().unwrap(), &"1".parse().unwrap())
        );
        assert!(of_variable("authorization").is_err());
    }
}
