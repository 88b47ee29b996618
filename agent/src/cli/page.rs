//! A page that stands alone: style, script and data in one file, nothing is fetched.
//!
//! The data is text of other people: it is no code, whatever it says. The page's policy lets the browser run
//! this script and no other, and load nothing.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The parts that are the same in every page of a kind.
pub(super) struct StandalonePage {
    /// With marks where the others go.
    pub(super) html: &'static str,
    pub(super) style: &'static str,
    pub(super) script: &'static str,
}

impl StandalonePage {
    /// `data`: what the script reads, as JSON.
    pub(super) fn with(&self, data: &impl Serialize) -> String {
        let Self { html, style, script } = self;
        let data =
            serde_json::to_string(data).expect("all that is shown has string keys and no failing parts");
        // No text of an object may end the element that holds the data.
        let data = data.replace('<', "\\u003c");
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; base-uri 'none'; form-action 'none'",
            source(script),
            source(style)
        );
        // The data comes last: it may hold a mark.
        let parts = [
            ("/* policy */", &*policy),
            ("/* style */", style),
            ("/* script */", script),
            ("/* data */", &data),
        ];
        parts.iter().fold((*html).to_owned(), |page, (mark, part)| page.replacen(mark, part, 1))
    }
}

/// As a policy names what it lets in (CSP 3, section 2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_data_and_the_policy_names_the_script() {
        let page = StandalonePage {
            html: "/* policy */|/* style */|/* script */|/* data */",
            style: "b{}",
            script: "",
        };
        let text = page.with(&["</script><script>alert(1)</script>", "/* script */"]);
        assert!(!text.contains("</script>"), "{text}");
        // The digest of nothing, as FIPS 180-4 has it.
        let nothing = "script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert!(text.contains(nothing), "{text}");
        assert!(
            text.ends_with(r#"|b{}||["\u003c/script>\u003cscript>alert(1)\u003c/script>","/* script */"]"#),
            "{text}"
        );
    }
}
