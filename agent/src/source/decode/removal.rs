//! Whether an object of a change stands for its own removal: by podgate's annotation, or as a patch of
//! kustomize.

use super::field::{JsonObject, Reported, quoted};

/// The annotation, and the value that takes the object away.
const ANNOTATION: &str = "podgate.io/what-if";
const REMOVE: &str = "remove";

/// How a patch of kustomize deletes an object: `$patch: delete`.
const PATCH: &str = "$patch";
const DELETE: &str = "delete";

/// Anything else that these two say is a fault: it would be taken for an object to add.
pub(super) fn is_asked(fields: &JsonObject<'_>) -> Result<bool, Reported> {
    let metadata = fields.get("metadata");
    let metadata = metadata.object()?;
    let annotations = metadata.get("annotations");
    let annotations = annotations.object()?;
    for (field, word) in [(annotations.get(ANNOTATION), REMOVE), (fields.get(PATCH), DELETE)] {
        match field.optional_text()? {
            Some(text) if text == word => return Ok(true),
            Some(text) => return Err(field.fault(format!("{} is not known, only {word:?}", quoted(text)))),
            None => {}
        }
    }
    Ok(false)
}
