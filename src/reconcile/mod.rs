//! The reconciler: the only code that acts on MediaServer. It compares intent with what the server lists, starts what
//! is missing at the pace that network and cameras bear, and goes on comparing for as long as the server runs. The
//! restore after a start is its first pass, and there is no other way. [`plan`] decides, of each [`proxy`], with
//! [`queue`] for the order, [`chain`] for what feeds what and [`progress`] for the counts; [`driver`] does.

mod chain;
mod driver;
mod host;
mod plan;
mod progress;
mod proxy;
mod queue;
#[cfg(test)]
mod simulation;

pub use self::driver::{Handle, Idle, ReconcileStatus, start};
pub use self::host::{Add, Added, Host, Intent, Listed, Wanted};
pub use self::plan::Limits;
pub use self::progress::{Progress, SourceReport};
pub use self::proxy::{PhaseCounts, UnhealthyProxy};
