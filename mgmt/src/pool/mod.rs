//! Membership and agreement: Raft between glusterds, probing, detaching, and going on alone.

pub mod membership;
pub mod network;
pub mod propose;
