//! What a shard sends, when, and by which permit: shards, their coordinator and an account in
//! virtual time.

mod company;
mod cost_classes;
mod endpoints;
mod flows;
mod folds;
mod held;
mod linger;
mod neighbours;
mod planted;
mod polls;
mod promises;
mod pulls;
mod reads;
mod refused_token;
mod restart;
mod retries;
mod truth;
mod urgent;
mod world;
