//! What users see: the program itself is run, on a small shop, offline and beside an agent's server.

mod agent;
mod browser;
mod ci;
mod hostile;
mod large;
mod page;
mod podgate;
mod reference;
mod sent;
mod snapshots;
