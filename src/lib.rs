//! Selvedge.
#![forbid(unsafe_code)]
