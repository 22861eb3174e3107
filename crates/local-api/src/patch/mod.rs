//! The kinds of patch that need more than a library call, and who owns which field.

pub(crate) mod apply;
pub(crate) mod fieldset;
pub(crate) mod managed;
pub(crate) mod strategic;
