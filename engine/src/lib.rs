//! The brick: glusterfsd.
