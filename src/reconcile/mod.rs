//! The reconciler: the only code that acts on MediaServer. It compares intent with what the server has, and starts what
//! is missing as fast as the network and the cameras allow, for as long as the server runs. The restore after a start
//! is its first pass. [`plan`] decides about each [`proxy`], with [`queue`] for the order, [`chain`] for proxy loops
//! and [`progress`] for the counts; [`driver`] carries the plan out, and [`probe`] asks servers whether they answer.

mod chain;
mod driver;
mod host;
mod plan;
mod probe;
mod progress;
mod proxy;
mod queue;
#[cfg(test)]
mod simulation;
mod urls;

pub use self::driver::{Event, Handle, ReconcileStatus, start};
pub use self::host::{Add, Added, Host, Intent, Listed, UsedUrl, Wanted};
pub use self::plan::{Limits, SETTLES};
pub use self::progress::{Progress, SourceReport};
pub use self::proxy::{PhaseCounts, Unhealthy, UnhealthyProxy};
