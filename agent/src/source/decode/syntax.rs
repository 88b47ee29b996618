//! Reports of text that breaks the syntax of names, labels and port names.
//!
//! In: a field and what the model's syntax says of its text. Out: a fault of that field.

use super::field::{Field, Reported, quoted};

pub(super) use podgate_core::model::syntax::{
    Syntax, dns_label, dns_subdomain, label_key, label_value, port_name,
};

/// Reports text that breaks its syntax but is used as it stands.
pub(super) fn report(field: &Field<'_>, text: &str, syntax: Syntax) {
    let _reported = check(field, text, syntax);
}

/// Reports text that breaks its syntax.
pub(super) fn check(field: &Field<'_>, text: &str, syntax: Syntax) -> Result<(), Reported> {
    syntax.map_err(|rule| field.fault(format!("{} is not {rule}", quoted(text))))
}
