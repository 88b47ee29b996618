//! Where the value of an option comes from: the command line, else the environment, else the file of
//! `--config`, else its default.
//!
//! Environment and file become defaults of the very options that clap knows, so names, types and messages are
//! the same everywhere; a value is checked where it stands, so that a message names its place.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};

use super::{Cli, output::Output};

/// Looks up a variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Why there is nothing to run.
#[derive(Debug)]
pub(super) enum CliError {
    /// Wrong usage, or help was asked for.
    Usage(clap::Error),
    Failed(anyhow::Error),
}

/// Options of other verbs that the environment sets too: they say which agent is meant.
const OF_ALL_VERBS: [&str; 2] = ["bpffs", "socket"];

/// Variables beside `PODGATE_...`, by the option that they set.
const EXTRA_VARIABLES: [(&str, &str); 4] = [
    ("node", "NODE_NAME"),
    ("log", "RUST_LOG"),
    ("otlp", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("otlp-ca", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
];

/// An option, and the values that one layer gives it.
type Value = (clap::Id, Vec<OsString>);

/// Parses a command line.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &Environment<'_>,
) -> Result<Cli, CliError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let given = Cli::command().try_get_matches_from(&arguments)?;
    let (verb, options) = given.subcommand().expect("clap refuses a command line without a verb");
    let mut command = Cli::command();
    let known = command.find_subcommand(verb).expect("clap only finds verbs that it knows");
    let mut values = Vec::new();
    if verb == "agent"
        && let Some(file) = config_file(options, environment)
    {
        values = from_file(known, &file).with_context(|| file.display().to_string())?;
    }
    values.extend(from_environment(known, environment)?);
    command = command.mut_subcommand(verb, |verb| {
        values.into_iter().fold(verb, |verb, (option, values)| {
            verb.mut_arg(option, |option| {
                option.default_values(values.into_iter().map(clap::builder::OsStr::from))
            })
        })
    });
    let matches = command.try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    if !cli.verb.outputs().contains(&cli.output) {
        let message = match cli.output {
            Output::Wide => "wide is an output of `podgate coverage` and `podgate cluster` alone",
            Output::Yaml => "yaml is an output of `podgate cluster` alone",
            Output::Csv => "csv is an output of `podgate matrix` alone",
            Output::Html => "html is an output of `podgate matrix` and `podgate cluster report` alone",
            Output::Table | Output::Json => "this verb has no table: its outputs are html, json and yaml",
        };
        return Err(CliError::Usage(Cli::command().error(ErrorKind::InvalidValue, message)));
    }
    Ok(cli)
}

fn config_file(options: &ArgMatches, environment: &Environment<'_>) -> Option<PathBuf> {
    let given = options.get_one::<PathBuf>("config").cloned();
    given.or_else(|| environment("PODGATE_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from))
}

fn from_file(verb: &Command, file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(file)?;
    // `off` is a value of `metrics`, not a boolean; snippets of the file would not fit on one line.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let fields: Option<BTreeMap<String, serde_json::Value>> =
        serde_saphyr::from_str_with_options(&text, options)?;
    let mut values = Vec::new();
    for (field, value) in fields.into_iter().flatten() {
        let option = verb
            .get_arguments()
            .find(|option| option.get_long() == Some(&field) && field != "config")
            .ok_or_else(|| anyhow!("{field}: no option of `podgate {}` has this name", verb.get_name()))?;
        let texts = texts(option, value).with_context(|| field.clone())?;
        check(option, &texts).with_context(|| field.clone())?;
        values.push((option.get_id().clone(), texts));
    }
    Ok(values)
}

/// The value as it would stand on the command line.
fn texts(option: &Arg, value: serde_json::Value) -> anyhow::Result<Vec<OsString>> {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    match value {
        String(text) => Ok(vec![text.into()]),
        Number(number) => Ok(vec![number.to_string().into()]),
        Bool(value) => Ok(vec![value.to_string().into()]),
        Array(values) if repeatable(option) => {
            let texts = values.into_iter().map(|value| match value {
                Array(_) => bail!("takes a list of values, not a list in a list"),
                value => texts(option, value),
            });
            Ok(texts.collect::<anyhow::Result<Vec<_>>>()?.concat())
        }
        Array(_) => bail!("takes one value, not a list"),
        Null => bail!("has no value"),
        Object(_) => bail!("takes a value, not a mapping"),
    }
}

fn from_environment(verb: &Command, environment: &Environment<'_>) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    for option in verb.get_arguments() {
        let Some(long) = option.get_long() else { continue };
        if verb.get_name() != "agent" && !OF_ALL_VERBS.contains(&long) {
            continue;
        }
        let own = format!("PODGATE_{}", long.replace('-', "_").to_uppercase());
        let familiar =
            EXTRA_VARIABLES.iter().filter(|(option, _)| *option == long).map(|(_, variable)| *variable);
        // A manifest often sets a variable that may be empty.
        let found = std::iter::once(&*own)
            .chain(familiar)
            .find_map(|variable| Some((variable, environment(variable).filter(|value| !value.is_empty())?)));
        if let Some((variable, value)) = found {
            let texts = if repeatable(option) {
                std::env::split_paths(&value).map(PathBuf::into_os_string).collect()
            } else {
                vec![value]
            };
            check(option, &texts).with_context(|| format!("environment variable {variable}"))?;
            values.push((option.get_id().clone(), texts));
        }
    }
    Ok(values)
}

fn repeatable(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append)
}

/// Whether the option takes these values, in clap's words if not.
fn check(option: &Arg, texts: &[OsString]) -> anyhow::Result<()> {
    let long = option.get_long().expect("only options with a long name come here");
    let alone = Command::new("podgate").no_binary_name(true).arg(option.clone());
    let arguments = texts.iter().map(|text| {
        let mut argument = OsString::from(format!("--{long}="));
        argument.push(text);
        argument
    });
    alone.try_get_matches_from(arguments).map(|_| ()).map_err(|error| {
        let text = error.to_string();
        // After an empty line comes advice about a command line that no one wrote.
        let lines: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
        anyhow!("{}", lines.join(" ").trim_start_matches("error: ").to_owned())
    })
}

impl From<clap::Error> for CliError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
