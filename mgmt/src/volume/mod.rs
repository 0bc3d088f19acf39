//! Volumes: the commands, and what each node does for them.

pub mod about;
pub mod bricks;
pub mod clear_locks;
pub mod create;
pub mod facts;
pub mod heal;
pub mod info;
pub mod local;
pub mod option_rules;
pub mod options;
pub mod profile;
pub mod run;
