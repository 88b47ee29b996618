//! Our entry in a container runtime's list of plugins.
//!
//! In: the text of a configuration. Out: the same text with the entry at the end of the list, or without it;
//! no other byte changes.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{json, request::VERSIONS};

/// The name of the plugin's binary.
pub(super) const TYPE: &str = "podgate-cni";

/// A list with the entry as its last.
pub(super) fn with_entry(list: &str, entry: &Value) -> Result<String> {
    let plugins = Plugins::of(list)?;
    ensure!(plugins.all.iter().any(|(_, value)| !is_ours(value)), "it has no other plugin");
    if plugins.ours().count() == 1 && plugins.all.last().is_some_and(|(_, value)| value == entry) {
        return Ok(list.to_owned());
    }
    let list = without_entry(list)?;
    let Plugins { array, all } = Plugins::of(&list)?;
    let first = all.first().map_or(array.end, |(range, _)| range.start);
    let end = all.last().map_or(array.start + 1, |(range, _)| range.end);
    // As the first one is set off from the bracket.
    let gap = &list[array.start + 1..first];
    Ok(format!("{},{gap}{entry}{}", &list[..end], &list[end..]))
}

/// A list without the entry.
pub(super) fn without_entry(list: &str) -> Result<String> {
    let mut list = list.to_owned();
    loop {
        let plugins = Plugins::of(&list)?;
        let Some(place) = plugins.all.iter().position(|(_, value)| is_ours(value)) else { return Ok(list) };
        let range = |place: usize| plugins.all.get(place).map(|(range, _)| range.clone());
        let ours = range(place).context("it is there")?;
        let before = place.checked_sub(1).and_then(range);
        let (start, end) = match (before, range(place + 1)) {
            (Some(before), _) => (before.end, ours.end),
            (None, Some(after)) => (ours.start, after.start),
            (None, None) => (ours.start, ours.end),
        };
        list.replace_range(start..end, "");
    }
}

pub(super) fn has_entry(list: &str) -> bool {
    Plugins::of(list).is_ok_and(|plugins| plugins.ours().next().is_some())
}

/// Checks that a list is one that a runtime takes.
pub(super) fn check(list: &str) -> Result<()> {
    let plugins = Plugins::of(list)?;
    ensure!(!plugins.all.is_empty(), "it lists no plugin");
    Ok(())
}

/// A list of the one plugin of an old configuration, and the entry.
pub(super) fn list_of(single: &str, entry: &Value) -> Result<String> {
    let plugin: Value = serde_json::from_str(single).context("it is no JSON")?;
    let text = |name: &str| plugin.get(name).and_then(Value::as_str);
    ensure!(text("type").is_some_and(|kind| !kind.is_empty()), "it names no plugin");
    let version = text("cniVersion").unwrap_or("0.1.0");
    ensure!(VERSIONS.contains(&version), "plugins of CNI version {version} cannot be chained");
    let name = Value::from(text("name").unwrap_or_default());
    let (version, single) = (Value::from(version), single.trim());
    Ok(format!(
        "{{\n  \"cniVersion\": {version},\n  \"name\": {name},\n  \"plugins\": [\n    {single},\n    {entry}\n  ]\n}}\n"
    ))
}

/// Where the plugins of a list are, and what they are.
struct Plugins {
    array: std::ops::Range<usize>,
    all: Vec<(std::ops::Range<usize>, Value)>,
}

impl Plugins {
    fn of(list: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(list).context("it is no JSON")?;
        ensure!(value.get("plugins").is_some_and(Value::is_array), "it has no list of plugins");
        // Of several with one name, the last one counts, to all that read the file.
        let members = json::members(list, 0..list.len());
        let array = members.into_iter().rfind(|(name, _)| name == "plugins").map(|(_, range)| range);
        let array = array.context("it has no list of plugins")?;
        let all = json::parts(list, array.clone()).into_iter().map(|range| {
            let value = serde_json::from_str(&list[range.clone()]).context("a plugin of the list")?;
            Ok((range, value))
        });
        Ok(Self { all: all.collect::<Result<_>>()?, array })
    }

    fn ours(&self) -> impl Iterator<Item = &Value> {
        self.all.iter().map(|(_, value)| value).filter(|value| is_ours(value))
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(TYPE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({"type": TYPE, "timeout": 5})
    }

    #[test]
    fn the_entry_comes_last_and_its_removal_gives_every_byte_back() {
        for list in [
            r#"{"cniVersion":"0.3.1","name":"n","plugins":[{"type":"bridge"}]}"#,
            r#"{"plugins": [ {"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}} ], "name": "]"}"#,
            "{\r\n\t\"name\": \"n\",\r\n\t\"plugins\": [\r\n\t\t{\r\n\t\t\t\"type\": \"ptp\"\r\n\t\t}\r\n\t]\r\n}",
            r#"{"plugins": [], "plugins": [{"type": "a\"],[", "x": ["}"]}], "z": {"plugins": [1]}}"#,
        ] {
            let installed = with_entry(list, &entry()).unwrap();
            let value: Value = serde_json::from_str(&installed).unwrap();
            assert_eq!(value["plugins"].as_array().unwrap().last(), Some(&entry()), "{installed}");
            assert_eq!(with_entry(&installed, &entry()).unwrap(), installed, "twice is once");
            assert_eq!(without_entry(&installed).unwrap(), list);
            assert!(has_entry(&installed) && !has_entry(list));
            let other = json!({"type": TYPE, "timeout": 9});
            let changed = with_entry(&installed, &other).unwrap();
            let value: Value = serde_json::from_str(&changed).unwrap();
            assert_eq!(value["plugins"].as_array().unwrap().last(), Some(&other), "{changed}");
            assert_eq!(without_entry(&changed).unwrap(), list, "other settings take the place of the old");
        }
    }

    #[test]
    fn an_entry_in_another_place_moves_to_the_end_and_is_there_once() {
        let ours = entry().to_string();
        for list in [
            format!(r#"{{"plugins": [{ours}, {{"type": "bridge"}}]}}"#),
            format!(r#"{{"plugins": [{{"type": "bridge"}}, {ours}, {{"type": "portmap"}}, {ours}]}}"#),
        ] {
            let value: Value = serde_json::from_str(&with_entry(&list, &entry()).unwrap()).unwrap();
            let kinds: Vec<_> = value["plugins"].as_array().unwrap().iter().map(|it| &it["type"]).collect();
            assert_eq!(kinds.iter().filter(|kind| **kind == TYPE).count(), 1, "{kinds:?}");
            assert_eq!(kinds.last().and_then(|kind| kind.as_str()), Some(TYPE));
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for list in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"plugins": {}}"#,
            r#"{"plugins": []}"#,
            r#"{"plugins": [{"type": "podgate-cni"}]}"#,
        ] {
            assert!(with_entry(list, &entry()).is_err(), "{list}");
        }
    }

    #[test]
    fn a_configuration_of_one_plugin_becomes_a_list() {
        let single = "{\"cniVersion\": \"0.4.0\", \"name\": \"n\", \"type\": \"bridge\"}\n";
        let value: Value = serde_json::from_str(&list_of(single, &entry()).unwrap()).unwrap();
        assert_eq!((&value["cniVersion"], &value["name"]), (&json!("0.4.0"), &json!("n")));
        assert_eq!(value["plugins"], json!([serde_json::from_str::<Value>(single).unwrap(), entry()]));
        for single in [
            "{}",
            r#"{"cniVersion": "0.2.0", "type": "bridge"}"#,
            r#"{"type": "bridge"}"#,
            r#"{"cniVersion": "0.4.0"}"#,
        ] {
            assert!(list_of(single, &entry()).is_err(), "{single}");
        }
    }
}
