//! syncline wal
