//! `klto explain`: why an object is what it is.

use std::path::Path;

use klto_core::Failure;
use klto_session::{Journal, SCRATCH_NAME};

/// Lists the objects that are compiled native, and what reads each.
pub fn natives(output: &Path) -> anyhow::Result<u8> {
    let journal = output.join(SCRATCH_NAME).join("journal");
    let natives = Journal::read_natives(&journal).map_err(|error| {
        anyhow::Error::from(
            Failure::bad_input(format!(
                "{} was not built by klto: {error}",
                output.display()
            ))
            .hint("name the output tree with -O"),
        )
    })?;
    for (object, reader) in natives {
        println!("{}\t{reader}", object.display());
    }
    Ok(0)
}
