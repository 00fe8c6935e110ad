//! A ruleset with every kind of object, statement and comment, as values and as the text that a person would write.

mod rules;
mod tables;

pub use rules::{bridge_rules, inet_rules, odd_bridge_rules, odd_inet_rules};
pub use tables::{BRIDGE_TEXT, INET_TEXT, bridge_table, commented, inet_table};
