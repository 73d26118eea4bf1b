//! klto.
fn main() {}
