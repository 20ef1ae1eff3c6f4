//! Faults that strike the call that is about to be made.

use jiff::SignedDuration;
use world::LostReply;
use world::ec2::{self, Code};
use world::github::{self, Endpoint};

use crate::call::CallKind;
use crate::swarm::faults::Fault;
use crate::swarm::seed::Swarm;
use crate::universe::TableFault;

/// A list of so many runners stands for one of several pages.
const SHIFTING: usize = 4;

/// So many readings lack the same runner at most. That three in a row do by chance is not expected, and Drover does not allow for it.
const MOST_ON_NO_PAGE: u32 = 2;

impl Swarm<'_> {
    /// Prepares the model for the fault that strikes, if one does.
    pub(super) fn inject(&mut self, kind: CallKind) -> Option<Fault> {
        if !self.dice.on {
            return None;
        }
        match kind {
            CallKind::RunInstances => self.inject_launch(),
            CallKind::TerminateInstances => self.inject_terminate(),
            CallKind::StopInstances => self.inject_stop(),
            CallKind::StartInstances => self.inject_start(),
            CallKind::DescribeInstances => self.inject_describe(ec2::Operation::DescribeInstances),
            CallKind::GetConsoleOutput => self.inject_describe(ec2::Operation::GetConsoleOutput),
            CallKind::DescribeInstanceTypes => self.inject_describe(ec2::Operation::DescribeInstanceTypes),
            CallKind::DescribeSpotPriceHistory => self.inject_describe(ec2::Operation::DescribeSpotPriceHistory),
            CallKind::GenerateJitConfig => self.inject_github(Endpoint::GenerateJit),
            CallKind::ListRunners => self.inject_github(Endpoint::ListRunners).or_else(|| self.shift_list()),
            CallKind::DeleteRunner => self.inject_github(Endpoint::DeleteRunner),
            CallKind::GetJob => self.inject_github(Endpoint::GetJob),
            CallKind::ListRunJobs => self.inject_github(Endpoint::ListRunJobs),
            CallKind::ListRuns => self.inject_github(Endpoint::ListRuns),
            CallKind::ListRepositories => self.inject_github(Endpoint::ListRepositories),
            CallKind::ListDeliveries => self.inject_github(Endpoint::ListDeliveries),
            CallKind::Redeliver => self.inject_github(Endpoint::Redeliver),
            CallKind::CheckRun => self.inject_github(Endpoint::CreateCheckRun),
            CallKind::Rerun => self.inject_github(Endpoint::RerunJob),
            CallKind::Nudge => self.dice.strikes(Fault::NudgeFails).then(|| {
                self.universe.state().queue_fault = true;
                Fault::NudgeFails
            }),
            CallKind::GetSecretValue => self.dice.strikes(Fault::SecretUnreadable).then(|| {
                self.universe.state().secret_fault = true;
                Fault::SecretUnreadable
            }),
            CallKind::Get | CallKind::Query | CallKind::GetReports => {
                self.dice.strikes(Fault::TableThrottled).then(|| {
                    let fault = TableFault::Unavailable(LostReply::NotApplied);
                    self.universe.state().table_fault = Some(fault);
                    Fault::TableThrottled
                })
            }
            CallKind::CommitRecorded
            | CallKind::CommitChecked
            | CallKind::CommitDecided
            | CallKind::CommitRefused
            | CallKind::CommitResumed
            | CallKind::CommitBound
            | CallKind::CommitHandedOver
            | CallKind::CommitObserved
            | CallKind::CommitStopped
            | CallKind::CommitInterrupted
            | CallKind::CommitUnregistered
            | CallKind::CommitClosed
            | CallKind::CommitCircuitOpened
            | CallKind::CommitNotified
            | CallKind::CommitRerun
            | CallKind::CommitSwept
            | CallKind::CommitCondemned
            | CallKind::CommitAdopted
            | CallKind::CommitUnlogged => self.inject_commit(),
        }
    }

    fn inject_commit(&mut self) -> Option<Fault> {
        let kinds = [
            (Fault::TableConflict, TableFault::Conflict),
            (Fault::TableThrottled, TableFault::Unavailable(LostReply::NotApplied)),
            (Fault::TableLostAfter, TableFault::Unavailable(LostReply::Applied)),
        ];
        let (fault, how) = kinds.into_iter().find(|(fault, _)| self.dice.strikes(*fault))?;
        self.universe.state().table_fault = Some(how);
        Some(fault)
    }

    fn inject_terminate(&mut self) -> Option<Fault> {
        let operation = ec2::Operation::TerminateInstances;
        self.universe.ec2(|ec2, _| ec2.faults.errors.clear());
        if self.dice.strikes(Fault::TerminateFails) {
            self.universe.ec2(|ec2, _| ec2.faults.errors.push_back((operation, Code::InternalError)));
            return Some(Fault::TerminateFails);
        }
        if self.dice.strikes(Fault::TerminateLostAfter) {
            self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back((operation, LostReply::Applied)));
            return Some(Fault::TerminateLostAfter);
        }
        None
    }

    fn inject_stop(&mut self) -> Option<Fault> {
        const CODES: [Code; 3] = [Code::InternalError, Code::RequestLimitExceeded, Code::UnauthorizedOperation];
        self.inject_change(Fault::StopFails, ec2::Operation::StopInstances, &CODES)
    }

    fn inject_start(&mut self) -> Option<Fault> {
        const CODES: [Code; 4] = [
            Code::InternalError,
            Code::RequestLimitExceeded,
            Code::UnauthorizedOperation,
            Code::InsufficientInstanceCapacity,
        ];
        self.inject_change(Fault::StartFails, ec2::Operation::StartInstances, &CODES)
    }

    /// One of these errors, a call that does not arrive, or a lost answer.
    fn inject_change(&mut self, fault: Fault, operation: ec2::Operation, codes: &[Code]) -> Option<Fault> {
        if !self.dice.strikes(fault) {
            return None;
        }
        let lost = [LostReply::NotApplied, LostReply::Applied];
        let which = self.dice.pick(fault, codes.len() + lost.len());
        self.universe.ec2(|ec2, _| match codes.get(which) {
            Some(code) => ec2.faults.errors.push_back((operation, *code)),
            None => ec2.faults.lost_replies.push_back((operation, lost[which - codes.len()])),
        });
        Some(fault)
    }

    fn inject_describe(&mut self, operation: ec2::Operation) -> Option<Fault> {
        self.dice.strikes(Fault::DescribeFails).then(|| {
            self.universe.ec2(|ec2, _| ec2.faults.errors.push_back((operation, Code::Unavailable)));
            Fault::DescribeFails
        })
    }

    fn inject_launch(&mut self) -> Option<Fault> {
        let shortages = self.shortages();
        self.universe.ec2(|ec2, _| {
            ec2.faults.refusals.clear();
            ec2.faults.capacity.clear();
            ec2.faults.refusals.extend(shortages);
        });
        let refuse = |swarm: &mut Self, fault: Fault, codes: &[Code]| {
            let code = codes[swarm.dice.pick(fault, codes.len())];
            let refusal = ec2::Refusal { matches: ec2::LaunchMatch::default(), code, when: ec2::When::Next(1) };
            swarm.universe.ec2(|ec2, _| ec2.faults.refusals.insert(0, refusal));
            Some(fault)
        };
        for (fault, how) in
            [(Fault::LaunchLostBefore, LostReply::NotApplied), (Fault::LaunchLostAfter, LostReply::Applied)]
        {
            if self.dice.strikes(fault) {
                let lost = (ec2::Operation::RunInstances, how);
                self.universe.ec2(|ec2, _| ec2.faults.lost_replies.push_back(lost));
                return Some(fault);
            }
        }
        let refusals: [(Fault, &[Code]); 8] = [
            (
                Fault::Capacity,
                &[
                    Code::InsufficientInstanceCapacity,
                    Code::UnfulfillableCapacity,
                    Code::Unsupported,
                    Code::InsufficientFreeAddressesInSubnet,
                ],
            ),
            (Fault::Quota, &[Code::VcpuLimitExceeded, Code::MaxSpotInstanceCountExceeded]),
            (Fault::Throttled, &[Code::RequestLimitExceeded, Code::Throttling]),
            (Fault::Misconfigured, &[Code::UnauthorizedOperation, Code::InvalidAmiIdNotFound]),
            (Fault::Ec2Broken, &[Code::InternalError, Code::Unavailable]),
            (Fault::UnknownCode, &[Code::TagPolicyViolation, Code::SpotRoleMissing, Code::NeverSeen]),
            (Fault::Credentials, &[Code::RequestExpired, Code::AuthFailure]),
            (Fault::TokenUsed, &[Code::IdempotentParameterMismatch, Code::IdempotentInstanceTerminated]),
        ];
        for (fault, codes) in refusals {
            if self.dice.strikes(fault) {
                return refuse(self, fault, codes);
            }
        }
        if self.dice.strikes(Fault::Partial) {
            let left = 1 + self.dice.pick(Fault::Partial, 4) as u32;
            let stock = ec2::Capacity { matches: ec2::LaunchMatch::default(), left };
            self.universe.ec2(|ec2, _| ec2.faults.capacity.push(stock));
            return Some(Fault::Partial);
        }
        None
    }

    /// A runner is on no page of a list that has several. The worlds' lists have one page; the longer ones stand for lists of several.
    fn shift_list(&mut self) -> Option<Fault> {
        let own = self.own_runners();
        let is_long = own.len() >= SHIFTING;
        if !is_long || !self.dice.strikes(Fault::ListShifts) {
            return None;
        }
        let missing = own[self.dice.pick(Fault::ListShifts, own.len())];
        let times = self.truth.on_no_page.entry(missing).or_default();
        *times += 1;
        (*times <= MOST_ON_NO_PAGE).then(|| {
            self.universe.state().on_no_page = Some(missing);
            Fault::ListShifts
        })
    }

    fn inject_github(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let now = self.now;
        if now < self.github_hangs_until {
            // What GitHub has done by the time Drover gives up is not known.
            let lost = [LostReply::NotApplied, LostReply::Applied][self.dice.pick(Fault::GithubHangs, 2)];
            self.universe.github(|github, _| github.faults.lost_replies.push_back((endpoint, lost)));
            return Some(Fault::GithubHangs);
        }
        let kinds = [
            Fault::GithubBroken,
            Fault::GithubLostBefore,
            Fault::GithubLostAfter,
            Fault::GithubLimit,
            Fault::NameTaken,
        ];
        let fault = kinds.into_iter().find(|fault| {
            (*fault != Fault::NameTaken || endpoint == Endpoint::GenerateJit) && self.dice.strikes(*fault)
        })?;
        let wait = SignedDuration::from_secs(60 + self.dice.pick(Fault::GithubLimit, 180) as i64);
        self.universe.github(|github, _| match fault {
            Fault::GithubLostBefore => github.faults.lost_replies.push_back((endpoint, LostReply::NotApplied)),
            Fault::GithubLostAfter => github.faults.lost_replies.push_back((endpoint, LostReply::Applied)),
            Fault::GithubLimit => {
                github.faults.failures.push_back((endpoint, github::Failure::SecondaryLimit { until: now + wait }));
            }
            Fault::NameTaken => {
                let taken = github::Failure::Conflict("a runner of that name exists".to_owned());
                github.faults.failures.push_back((endpoint, taken));
            }
            _ => github.faults.broken.push_back((endpoint, 502)),
        });
        Some(fault)
    }
}
