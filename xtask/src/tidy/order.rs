//! The order of the agent's modules: data runs one way, and a module uses only modules upstream of it.
//!
//! In: the fenced block under the heading "Module order" of ARCHITECTURE.md, which names the modules from upstream to
//! downstream, and the text of each file. Out: uses that go against the order. Tests may use what they like.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::source::{Found, without_tests};

/// Modules at the top of the agent's crate, upstream first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModuleOrder {
    modules: Vec<String>,
}

impl ModuleOrder {
    pub(super) fn from_markdown(text: &str) -> Result<Self> {
        let section = text.split("\n#").find(|section| {
            section.lines().next().is_some_and(|title| title.trim_start_matches('#').trim() == "Module order")
        });
        let section = section.context("there is no heading \"Module order\"")?;
        let block = section.split("```").nth(1).context("there is no fenced block below \"Module order\"")?;
        // The rest of the opening fence may name a language.
        let (_, block) = block.split_once('\n').context("the fenced block is empty")?;
        let names = block.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        let modules: Vec<_> = names.map(str::to_owned).collect();
        ensure!(!modules.is_empty(), "the fenced block names no module");
        Ok(Self { modules })
    }

    /// Checks one file of the agent, by its path below `agent/src`.
    pub(super) fn check(&self, file: &Path, text: &str) -> Vec<Found> {
        let top = file.components().next().map(|part| Path::new(part.as_os_str()).with_extension(""));
        let Some(module) = top.as_deref().and_then(Path::to_str) else { return Vec::new() };
        // They wire the modules together and belong to none.
        if ["lib", "main"].contains(&module) {
            return Vec::new();
        }
        let Some(place) = self.place(module) else {
            return vec![(1, format!("module `{module}` is not in the module order of ARCHITECTURE.md"))];
        };
        let uses = uses(without_tests(text)).into_iter().filter(|(_, used)| used != module);
        let wrong = uses.filter_map(|(line, used)| match self.place(&used) {
            Some(used_place) if used_place < place => None,
            Some(_) => Some((line, format!("`{module}` uses `{used}`, which is downstream of it"))),
            None => Some((line, format!("`{module}` uses `{used}`, which is not in the module order"))),
        });
        wrong.collect()
    }

    fn place(&self, module: &str) -> Option<usize> {
        self.modules.iter().position(|known| known == module)
    }
}

/// The modules that `text` names after `crate::`, with the line.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, prefix) in text.match_indices("crate::") {
        let line = text[..at].matches('\n').count() + 1;
        // `$crate` of a macro, or another crate whose name ends so.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || "_$".contains(c)) {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let names = rest.strip_prefix('{').map_or_else(|| vec![first_name(rest)], group);
        found.extend(names.into_iter().filter(|name| starts_lower(name)).map(|name| (line, name.to_owned())));
    }
    found
}

/// First names of the parts of `a::B, c::{D, E}, …}`.
fn group(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.push(first_name(text[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

fn first_name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Modules are lower case; types and constants at the crate's root are not modules.
fn starts_lower(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Architecture\n\n## Module order\n\nUpstream first.\n\n```text\nmodel, source -> compiler\nkernel\n```\n\n## Next\n";

    fn order() -> ModuleOrder {
        ModuleOrder::from_markdown(PAGE).expect("well-formed")
    }

    #[test]
    fn the_order_is_read_from_the_block_below_its_heading() {
        assert_eq!(order().modules, ["model", "source", "compiler", "kernel"]);
        for bad in ["# Architecture\n", "\n## Module order\nno block\n", "\n## Module order\n```\n```\n"] {
            assert!(ModuleOrder::from_markdown(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn arrows_go_upstream_only() {
        let order = order();
        for (file, text, expected) in [
            ("compiler.rs", "use crate::model::Name;\n", vec![]),
            ("compiler/row.rs", "use crate::compiler::Class;\nuse super::Row;\n", vec![]),
            ("compiler.rs", "//!\nuse crate::{model::{A, b::C}, kernel::Map};\n", vec![(2, "kernel")]),
            ("model.rs", "fn f() -> crate::source::Event {}\n", vec![(1, "source")]),
            ("model.rs", "use podgate_crate::kernel; $crate::kernel!()\n", vec![]),
            ("model.rs", "use crate::Error;\n", vec![]),
            ("model.rs", "//!\n#[cfg(test)]\nmod tests {\n use crate::kernel::Map;\n}\n", vec![]),
            ("compiler.rs", "use crate::other::X;\n", vec![(1, "other")]),
            ("other.rs", "", vec![(1, "other")]),
            ("main.rs", "use crate::anything::X;\n", vec![]),
        ] {
            let found = order.check(Path::new(file), text);
            assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
            for ((line, message), (expected_line, name)) in found.iter().zip(expected) {
                assert_eq!(*line, expected_line, "{text}");
                assert!(message.contains(name), "{message}");
            }
        }
    }
}
