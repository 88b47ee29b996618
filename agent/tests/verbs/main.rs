//! What users see: the program itself is run, on a small shop, offline and beside an agent's server.

mod agent;
mod browser;
mod ci;
mod hostile;
mod page;
mod podgate;
mod reference;
mod snapshots;
mod sent;
