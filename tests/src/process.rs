//! Real processes under test: the program, nodes and providers as its children, and how to talk
//! to them. Whatever was started ends with the value that stands for it.

mod dice;
mod http;
mod lines;
mod model;
mod node;
mod patience;
mod program;
mod provider;
mod running;

pub use dice::Dice;
pub use http::{Answer, request};
pub use lines::Lines;
pub use model::Model;
pub use node::{Config, Node};
pub use patience::{PATIENCE, until, wait};
pub use program::program;
pub use provider::{Application, Call, Provider, Violations};
pub use running::Running;
