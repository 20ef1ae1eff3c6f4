//! What a job used of its machine, as the machine reports it. The job can forge the report: it is read strictly, and nothing is
//! permitted and nothing is launched because of it. It is only shown.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// Bytes of the longest text that is read. The agent's are below half of it.
pub const LONGEST_USAGE: usize = 2048;

/// Points of a chart, at most.
pub const USAGE_POINTS: usize = 40;

/// How much longer than its machine a job may have run, because clocks differ.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// More than any machine of EC2 has.
const MOST_VCPUS: u32 = 4096;
const MOST_MIB: u32 = 64 << 20;

/// What a job used between its start and its end, of the whole machine: what the system itself used is included. The text in the
/// reports table is this as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the start of the job to its end.
    pub seconds: u32,
    /// What the machine has.
    pub vcpus: u32,
    pub memory_mib: u32,
    /// Of the root volume.
    pub disk_mib: u32,
    /// The vCPUs in use, in thousandths. The peak is the mean of the busiest second.
    pub cpu_mean: u32,
    pub cpu_peak: u32,
    /// The work that did not fit 1, 2, 4, 8 vCPUs and so on, each fewer than the machine has, in thousandths of a second of one vCPU.
    pub cpu_beyond: Vec<u64>,
    pub memory_mean_mib: u32,
    pub memory_peak_mib: u32,
    pub disk_peak_mib: u32,
    pub received_mib: u32,
    pub sent_mib: u32,
    /// The mean of equal parts of the job, in percent of what the machine has; at most [`USAGE_POINTS`].
    pub cpu_chart: Vec<u8>,
    pub memory_chart: Vec<u8>,
}

/// Why a reported usage is not used. Does not repeat the report's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableUsage {
    #[error("it is not as the agent writes it")]
    Malformed,
    #[error("its numbers contradict each other, or the life of its machine")]
    Implausible,
}

/// A line about a usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLine {
    pub what: &'static str,
    pub text: String,
    /// Its course in time, if it is known.
    pub chart: Option<String>,
}

impl Usage {
    /// Parses the report of a machine that lived, or has lived, for that time.
    ///
    /// # Errors
    /// If the agent would not have written this.
    pub fn parse(text: &str, lived: SignedDuration) -> Result<Self, UnusableUsage> {
        if text.len() > LONGEST_USAGE {
            return Err(UnusableUsage::Malformed);
        }
        let usage: Self = serde_json::from_str(text).map_err(|_| UnusableUsage::Malformed)?;
        if usage.text() != text {
            return Err(UnusableUsage::Malformed);
        }
        if usage.is_plausible(lived) { Ok(usage) } else { Err(UnusableUsage::Implausible) }
    }

    /// The text in the reports table.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers and lists of numbers can be written as JSON")
    }

    fn is_plausible(&self, lived: SignedDuration) -> bool {
        let whole = self.vcpus.saturating_mul(1000);
        let is_machine = (1..=MOST_VCPUS).contains(&self.vcpus)
            && (1..=MOST_MIB).contains(&self.memory_mib)
            && (1..=MOST_MIB).contains(&self.disk_mib);
        let is_within = self.cpu_mean <= self.cpu_peak
            && self.cpu_peak <= whole
            && self.memory_mean_mib <= self.memory_peak_mib
            && self.memory_peak_mib <= self.memory_mib
            && self.disk_peak_mib <= self.disk_mib;
        let is_time = SignedDuration::from_secs(self.seconds.into()) <= lived + TOLERANCE;
        let work = u64::from(self.seconds).saturating_add(1).saturating_mul(whole.into());
        let is_falling = self.cpu_beyond.is_sorted_by(|one, next| one >= next);
        let is_work = self.cpu_beyond.len() == smaller_vcpus(self.vcpus).count()
            && is_falling
            && self.cpu_beyond.iter().all(|beyond| *beyond <= work);
        let is_chart = |chart: &[u8]| chart.len() <= USAGE_POINTS && chart.iter().all(|percent| *percent <= 100);
        is_machine && is_within && is_time && is_work && is_chart(&self.cpu_chart) && is_chart(&self.memory_chart)
    }

    /// How many times as long the job would have run with this number of vCPUs: at each moment it needs the time to do what it did
    /// with those that it had. At least 1.
    pub fn slowdown(&self, vcpus: u32) -> f64 {
        if vcpus >= self.vcpus {
            return 1.0;
        }
        // A number between two powers of two counts like the lower one.
        let fits = smaller_vcpus(self.vcpus).zip(&self.cpu_beyond).take_while(|(smaller, _)| *smaller <= vcpus).last();
        let Some((smaller, beyond)) = fits else { return f64::INFINITY };
        1.0 + *beyond as f64 / 1000.0 / f64::from(smaller) / f64::from(self.seconds.max(1))
    }

    /// The mean of its vCPUs, and the peak of its memory, in percent of what the machine has.
    pub fn shares(&self) -> (f64, f64) {
        let cpu = f64::from(self.cpu_mean) / f64::from(self.vcpus) / 10.0;
        (cpu, 100.0 * f64::from(self.memory_peak_mib) / f64::from(self.memory_mib))
    }

    /// What people read.
    pub fn lines(&self) -> Vec<UsageLine> {
        let chart = |percents: &[u8]| (percents.len() > 1).then(|| sparkline(percents));
        let vcpus = |thousandths: u32| format!("{:.1}", f64::from(thousandths) / 1000.0);
        let of = if self.vcpus == 1 { "1 vCPU".to_owned() } else { format!("{} vCPUs", self.vcpus) };
        let line = |what, text, chart| UsageLine { what, text, chart };
        vec![
            line(
                "CPU",
                format!("mean {}, peak {} of {of}", vcpus(self.cpu_mean), vcpus(self.cpu_peak)),
                chart(&self.cpu_chart),
            ),
            line(
                "memory",
                format!(
                    "mean {}, peak {} of {}",
                    size(self.memory_mean_mib),
                    size(self.memory_peak_mib),
                    size(self.memory_mib)
                ),
                chart(&self.memory_chart),
            ),
            line("disk", format!("peak {} of {}", size(self.disk_peak_mib), size(self.disk_mib)), None),
            line("network", format!("{} received, {} sent", size(self.received_mib), size(self.sent_mib)), None),
        ]
    }
}

/// The lines as text, in columns, with the charts below each other.
pub fn in_columns(lines: &[UsageLine]) -> Vec<String> {
    let width = |text: &str| text.chars().count();
    let whats = lines.iter().map(|line| width(line.what)).max().unwrap_or(0);
    let texts = lines.iter().filter(|line| line.chart.is_some()).map(|line| width(&line.text)).max().unwrap_or(0);
    let line = |UsageLine { what, text, chart }: &UsageLine| match chart {
        Some(chart) => format!("{what:whats$}  {text:texts$}  {chart}"),
        None => format!("{what:whats$}  {text}"),
    };
    lines.iter().map(line).collect()
}

/// The numbers of vCPUs that [`Usage::cpu_beyond`] is about: the powers of two below the machine's number.
pub fn smaller_vcpus(vcpus: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|power| 1 << power).take_while(move |smaller| *smaller < vcpus)
}

/// An amount of MiB as people read it.
fn size(mib: u32) -> String {
    if mib < 1024 { format!("{mib} MiB") } else { format!("{:.1} GiB", f64::from(mib) / 1024.0) }
}

/// A chart in one line, of values in percent.
fn sparkline(percents: &[u8]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    percents.iter().map(|percent| BARS[usize::from(*percent).min(100) * (BARS.len() - 1) / 100]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIVED: SignedDuration = SignedDuration::from_mins(10);

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

    fn changed(change: impl FnOnce(&mut Usage)) -> Result<Usage, UnusableUsage> {
        let mut usage = usage();
        change(&mut usage);
        Usage::parse(&usage.text(), LIVED)
    }

    #[test]
    fn what_the_agent_writes_is_read_and_shown() {
        assert_eq!(Usage::parse(&usage().text(), LIVED), Ok(usage()));
        let lines: Vec<_> = usage().lines().into_iter().map(|line| (line.what, line.text, line.chart)).collect();
        let chart = |chart: &str| Some(chart.to_owned());
        let expected = [
            ("CPU", "mean 1.9, peak 4.0 of 4 vCPUs".to_owned(), chart("▁▂▅█▇▃")),
            ("memory", "mean 2.1 GiB, peak 6.3 GiB of 15.4 GiB".to_owned(), chart("▁▁▃▃▃▁")),
            ("disk", "peak 21.0 GiB of 38.6 GiB".to_owned(), None),
            ("network", "1.2 GiB received, 30 MiB sent".to_owned(), None),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn lines_are_in_columns_with_the_charts_below_each_other() {
        let expected = [
            "CPU      mean 1.9, peak 4.0 of 4 vCPUs           ▁▂▅█▇▃",
            "memory   mean 2.1 GiB, peak 6.3 GiB of 15.4 GiB  ▁▁▃▃▃▁",
            "disk     peak 21.0 GiB of 38.6 GiB",
            "network  1.2 GiB received, 30 MiB sent",
        ];
        assert_eq!(in_columns(&usage().lines()), expected);
        let of_one = Usage { vcpus: 1, cpu_chart: vec![50], sent_mib: 1024, received_mib: 1023, ..usage() };
        let lines = of_one.lines();
        assert_eq!((lines[0].text.as_str(), &lines[0].chart), ("mean 1.9, peak 4.0 of 1 vCPU", &None));
        assert_eq!(lines[3].text, "1023 MiB received, 1.0 GiB sent");
    }

    #[test]
    fn shares_are_the_mean_of_the_vcpus_and_the_peak_of_the_memory_in_percent() {
        let usage = Usage { vcpus: 4, cpu_mean: 1000, memory_peak_mib: 4096, memory_mib: 16_384, ..usage() };
        assert_eq!(usage.shares(), (25.0, 25.0));
    }

    #[test]
    fn the_longest_report_of_the_largest_machine_is_read() {
        let chart = vec![100; USAGE_POINTS];
        let largest = Usage {
            seconds: u32::MAX,
            vcpus: 1920,
            memory_mib: 33_554_432,
            disk_mib: 67_108_864,
            cpu_mean: 1_920_000,
            cpu_peak: 1_920_000,
            cpu_beyond: vec![8_246_337_206_400_000; 11],
            memory_mean_mib: 33_554_432,
            memory_peak_mib: 33_554_432,
            disk_peak_mib: 67_108_864,
            received_mib: u32::MAX,
            sent_mib: u32::MAX,
            cpu_chart: chart.clone(),
            memory_chart: chart,
        };
        assert!(largest.text().len() <= LONGEST_USAGE / 2 + 128, "{}", largest.text().len());
        assert_eq!(Usage::parse(&largest.text(), SignedDuration::from_secs(u32::MAX.into())), Ok(largest));
    }

    #[test]
    fn nothing_else_is_read_however_long_it_is() {
        let text = usage().text();
        let unknown = text.replacen('{', r#"{"more":1,"#, 1);
        let negative = text.replace("252", "-1");
        let others = [String::new(), "null".to_owned(), "9".repeat(1 << 20), format!(" {text}"), unknown, negative];
        for other in others {
            assert_eq!(Usage::parse(&other, LIVED), Err(UnusableUsage::Malformed), "{other:.60}");
        }
    }

    #[test]
    fn a_stored_usage_with_an_attribute_of_a_newer_version_is_read() {
        let mut stored = serde_json::to_value(usage()).unwrap();
        stored["newer"] = 7.into();
        assert_eq!(serde_json::from_value::<Usage>(stored).unwrap(), usage());
    }

    #[test]
    fn numbers_that_contradict_each_other_are_not_believed() {
        let changes: [fn(&mut Usage); 15] = [
            |it| it.vcpus = 0,
            |it| it.vcpus = 8,
            |it| it.vcpus = u32::MAX,
            |it| it.cpu_mean = 3951,
            |it| it.cpu_peak = 4001,
            |it| it.memory_mib = 0,
            |it| it.memory_peak_mib = 15_771,
            |it| it.memory_mean_mib = 6452,
            |it| it.disk_peak_mib = 39_501,
            |it| it.disk_mib = MOST_MIB + 1,
            |it| it.memory_mib = MOST_MIB + 1,
            |it| it.seconds = 661,
            |it| it.cpu_beyond = vec![1_012_001, 0],
            |it| it.cpu_beyond.reverse(),
            |it| it.cpu_chart = vec![0; USAGE_POINTS + 1],
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(changed(change), Err(UnusableUsage::Implausible), "change {number}");
        }
        assert_eq!(changed(|it| it.memory_chart[0] = 101), Err(UnusableUsage::Implausible));
        assert!(changed(|it| it.seconds = 660).is_ok());
    }

    #[test]
    fn a_job_with_fewer_vcpus_runs_longer_by_the_work_that_does_not_fit() {
        let job = usage();
        assert_eq!((job.slowdown(4), job.slowdown(96)), (1.0, 1.0));
        assert_eq!(job.slowdown(2), 1.0 + 126.0 / 2.0 / 252.0);
        assert_eq!(job.slowdown(3), job.slowdown(2));
        assert_eq!(job.slowdown(1), 1.0 + 300.0 / 252.0);
        assert_eq!(job.slowdown(0), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn no_text_is_read_as_anything_but_what_it_says(text in ".{0,300}", at in 0..400usize, with in ".{0,3}") {
            prop_assert!(Usage::parse(&text, LIVED).is_err());
            let mut near = usage().text();
            let at = near.floor_char_boundary(at.min(near.len()));
            near.insert_str(at, &with);
            if let Ok(read) = Usage::parse(&near, LIVED) {
                prop_assert_eq!(read.text(), near);
            }
        }
    }
}
