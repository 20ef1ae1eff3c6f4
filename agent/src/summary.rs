//! The summary of a job that its log shows.

use std::fmt::Write;

use domain::config::{Market, MicroUsd, Rates};
use domain::state::{MeasuredMachine, Usage, UsageLine, in_columns};
use jiff::SignedDuration;

/// The lines that the job-completed hook prints.
pub(crate) fn text(usage: &Usage, machine: &MeasuredMachine, rates: &Rates) -> String {
    let MeasuredMachine { instance_type, market, .. } = machine;
    let ran = SignedDuration::from_secs(usage.seconds.into());
    let mut text = format!("Drover: this job ran for {ran:#} on {instance_type}, {market}\n");
    let mut lines = usage.lines();
    lines.extend(cost(ran, machine, rates).map(|text| UsageLine { what: "cost", text, chart: None }));
    for line in in_columns(&lines) {
        let _ = writeln!(text, "Drover: {line}");
    }
    text
}

/// The cost of the job's time. None if no price is known.
fn cost(ran: SignedDuration, machine: &MeasuredMachine, rates: &Rates) -> Option<String> {
    let at = |price: MicroUsd| format!("{}, at {price} per hour", price.during(ran));
    if let Some(price) = machine.price_per_hour {
        return Some(at(price));
    }
    let list_price = rates.hour(&machine.instance_type)?;
    Some(match machine.market {
        Market::OnDemand => at(list_price),
        Market::Spot => format!("at most {}", at(list_price)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> Usage {
        Usage {
            seconds: 252,
            vcpus: 4,
            memory_mib: 15_770,
            disk_mib: 39_500,
            cpu_mean: 1900,
            cpu_peak: 3950,
            cpu_beyond: vec![300_000, 126_000],
            memory_mean_mib: 2150,
            memory_peak_mib: 6451,
            disk_peak_mib: 21_504,
            received_mib: 1229,
            sent_mib: 30,
            cpu_chart: vec![0, 20, 60, 100, 90, 40],
            memory_chart: vec![5, 13, 40, 41, 30, 12],
        }
    }

    fn machine(instance_type: &str, market: Market, price: Option<u64>) -> MeasuredMachine {
        MeasuredMachine { instance_type: instance_type.into(), market, price_per_hour: price.map(MicroUsd) }
    }

    #[test]
    fn a_summary_fits_one_screen() {
        let text =
            text(&usage(), &machine("m7i.xlarge", Market::Spot, Some(201_600)), &Rates::of("eu-central-1".into()));
        insta::assert_snapshot!(text, @"
        Drover: this job ran for 4m 12s on m7i.xlarge, spot
        Drover: CPU      mean 1.9, peak 4.0 of 4 vCPUs           ▁▂▅█▇▃
        Drover: memory   mean 2.1 GiB, peak 6.3 GiB of 15.4 GiB  ▁▁▃▃▃▁
        Drover: disk     peak 21.0 GiB of 38.6 GiB
        Drover: network  1.2 GiB received, 30 MiB sent
        Drover: cost     0.0141 USD, at 0.2016 USD per hour
        ");
    }

    #[test]
    fn the_cost_is_that_of_the_launch_or_the_list_price_or_unknown() {
        let rates = Rates::of("us-east-1".into());
        let costs = |machine: MeasuredMachine| cost(SignedDuration::from_mins(10), &machine, &rates);
        let costs = [
            costs(machine("m7i.large", Market::OnDemand, Some(120_000))),
            costs(machine("m7i.large", Market::OnDemand, None)),
            costs(machine("m7i.large", Market::Spot, None)),
            costs(machine("unknown.large", Market::Spot, None)),
        ];
        let costs: Vec<Option<&str>> = costs.iter().map(Option::as_deref).collect();
        let expected = [
            Some("0.0200 USD, at 0.1200 USD per hour"),
            Some("0.0168 USD, at 0.1008 USD per hour"),
            Some("at most 0.0168 USD, at 0.1008 USD per hour"),
            None,
        ];
        assert_eq!(costs, expected);
    }

    #[test]
    fn a_job_of_an_instant_has_a_summary_without_charts() {
        let short = Usage { seconds: 0, cpu_chart: Vec::new(), memory_chart: vec![5], ..usage() };
        let text = text(&short, &machine("unknown.large", Market::OnDemand, None), &Rates::of("eu-central-1".into()));
        assert!(text.starts_with("Drover: this job ran for 0s on unknown.large, on-demand\n"), "{text}");
        assert_eq!(text.lines().count(), 5);
    }
}
