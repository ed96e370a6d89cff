//! Why one event was not taken; the engine's own words.

pub use engine::refusal::{Code, Refusal};
