//! Checks of what pools with shapes or caps need to know: EC2's instance types and spot prices.

use domain::state::Config;
use jiff::{SignedDuration, Timestamp};

use super::report::Group;
use crate::output::age;

/// The janitor reads the instance types every day.
const OLD_CATALOGUE: SignedDuration = SignedDuration::from_hours(48);

/// The janitor reads the spot prices every ten minutes.
const OLD_PRICES: SignedDuration = SignedDuration::from_hours(1);

/// Adds nothing if no pool needs to know them.
pub(super) fn prices(group: &mut Group, config: &Config, now: Timestamp) {
    let needing: Vec<&str> = config.pools.iter().filter(|it| it.needs_prices()).map(|it| it.name.as_str()).collect();
    if needing.is_empty() {
        return;
    }
    let needing = needing.join(", ");
    let janitor = "the janitor reads them: look at its log group, and at its permissions (make deploy)";
    let Some(machines) = config.pools.iter().find_map(|pool| pool.machines.as_ref()) else {
        let message = format!("the item CATALOGUE is missing: nothing is launched for {needing}");
        return group.warn("instance types", message, "drover pools apply FILE writes it");
    };
    let since = |at: Timestamp| now.duration_since(at);
    match since(machines.catalogue.read_at) {
        old if old > OLD_CATALOGUE => {
            let message = format!("the item CATALOGUE is {} old: new types and prices are not known", age(old));
            group.warn("instance types", message, janitor);
        }
        fresh => {
            group.pass("instance types", format!("{} known, read {} ago", machines.catalogue.types.len(), age(fresh)))
        }
    }
    match machines.spot.as_ref().map(|spot| since(spot.read_at)) {
        None => {
            let message =
                format!("the item MARKET is missing: spot machines of {needing} are tried in the order of list prices");
            group.warn("spot prices", message, janitor);
        }
        Some(old) if old > OLD_PRICES => {
            let message = format!("the item MARKET is {} old: {needing} may pay more than necessary", age(old));
            group.warn("spot prices", message, janitor);
        }
        Some(fresh) => group.pass("spot prices", format!("read {} ago", age(fresh))),
    }
}
