//! What a shard sends, when, and by which permit: shards, their coordinator and an account in
//! virtual time.

mod company;
mod cost_classes;
mod held;
mod linger;
mod neighbours;
mod truth;
mod urgent;
mod world;
