//! The lab.
#![forbid(unsafe_code)]
