//! Parlour: calls for Matrix rooms.
pub mod sfu;
