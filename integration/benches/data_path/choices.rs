//! Other forms of Selvedge's own rules.

use selvedge_lab::Error;

/// Compares them with the rules as they are.
pub fn run(_rounds: usize) -> Result<(), Error> {
    Ok(())
}
