//! The program that is asked about registrations (`authorise`): what it has been asked, and what it has
//! answered.
//!
//! It is asked only about bridges whose keys are good, and can refuse them or limit their keys. So no
//! secret of the proxy's and no key leaves it, and an answer that does not come lets nobody in.
//!
//! Equal questions are asked once at a time, by threads of their own: a worker may not wait. An answer
//! is kept for as long as it says. A *hold* is what the bridges that were let in by one question
//! share: when an equal question is answered with no later, it is lost, and they with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::config::{Endpoint, Settings};
use crate::net::log_limiter::{LogLimiter, suppressed};
use crate::net::threads::{Bounds, Threads};
use crate::time::Millis;

use super::authorise_call::{self, Answer, Decision};

/// Their number is that of the questions that are asked at the same moment. `authorise-questions` bounds
/// how many wait.
const THREADS: Bounds = Bounds { name: "authorise", task: "ask", threads: 16, queue: usize::MAX };

/// The shortest time between two questions about bridges that are connected: answers that may not be
/// kept must not make a question of every request.
const AGAIN: Duration = Duration::from_secs(5);

/// Which part of the questions that may wait, and of the answers that are kept, those with keys made of
/// one root key may have: nobody is to keep all others out.
const SHARE_OF_ROOT: usize = 2;

/// Which part one visitor may have. Who holds a root key can make up visitors.
const SHARE_OF_VISITOR: usize = 4;

/// Names a question: the SHA-256 of its text.
pub(super) type QuestionId = [u8; 32];

/// What is asked.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) id: QuestionId,
    text: Arc<str>,
    /// The host that it is about, for the log.
    about: Arc<str>,
    by: By,
}

/// Who has made a question necessary.
#[derive(Clone)]
pub(super) struct By {
    /// The name of the key that the proxy's owner has made.
    pub(super) root: Arc<str>,
    /// Whom the limits of an answer are for.
    pub(super) visitor: Arc<str>,
}

impl By {
    /// One who has no key: by certificate, or address.
    pub(super) fn keyless(name: &str) -> By {
        let name: Arc<str> = name.into();
        By { root: Arc::clone(&name), visitor: name }
    }

    /// The parts of what there is in which it must find room.
    fn shares(&self) -> [(Share, usize); 2] {
        let (root, visitor) = (Arc::clone(&self.root), Arc::clone(&self.visitor));
        [(Share::Root(root), SHARE_OF_ROOT), (Share::Visitor(visitor), SHARE_OF_VISITOR)]
    }
}

/// Whose part of the questions or answers it is.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Share {
    Root(Arc<str>),
    Visitor(Arc<str>),
}

impl Question {
    pub(super) fn visitor(&self) -> &str {
        &self.by.visitor
    }

    /// `text` is the whole of it, and `same` what it has in common with equal ones.
    pub(super) fn new(text: &str, same: &str, about: &str, by: By) -> Question {
        Question { id: Sha256::digest(same).into(), text: text.into(), about: about.into(), by }
    }
}

/// What those who have asked are told.
pub(super) struct Told {
    pub(super) id: QuestionId,
    /// What the bridges share that are let in by it. A later no is seen there.
    pub(super) hold: Arc<Hold>,
    /// As it was when the question was asked.
    epoch: u64,
    /// `None` if there is no answer.
    pub(super) answer: Option<Arc<Answer>>,
    /// Bridges have lost what they were let in by. Only the first who has asked is told.
    pub(super) lost: bool,
}

/// Runs on a thread, when there is an answer or none is to be expected.
type Then = Box<dyn FnOnce(Told) + Send>;

/// What the bridges that were let in by one question share.
pub(super) struct Hold {
    question: Question,
    /// When to ask again, in milliseconds of the workers' clocks.
    again: AtomicU64,
    is_lost: AtomicBool,
    /// A bridge has had it.
    is_used: AtomicBool,
    /// The last answer that was a yes.
    said: Mutex<Option<Arc<Answer>>>,
    /// How often that has changed. Read for each request, without the lock.
    changes: AtomicU64,
}

impl Hold {
    fn new(question: Question, again: Millis) -> Hold {
        Hold {
            question,
            again: AtomicU64::new(again.0),
            is_lost: AtomicBool::new(false),
            is_used: AtomicBool::new(false),
            said: Mutex::default(),
            changes: AtomicU64::new(0),
        }
    }

    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// How often the answer has changed; see [`Hold::said`].
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// The last answer that was a yes, and how often it had changed.
    pub(super) fn said(&self) -> (u64, Option<Arc<Answer>>) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        (self.changes(), said.clone())
    }

    fn say(&self, answer: Option<&Arc<Answer>>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref().map(|of| &of.decision) != answer.map(|of| &of.decision) {
            self.changes.fetch_add(1, Relaxed);
        }
        *said = answer.cloned();
    }

    /// A bridge has it from now on.
    fn give(self: &Arc<Hold>) -> Arc<Hold> {
        self.is_used.store(true, Relaxed);
        Arc::clone(self)
    }

    /// Puts an answer in force, which may be used for so long. True if bridges have lost it.
    fn hear(&self, answer: &Arc<Answer>, (now, age): (Millis, Duration)) -> bool {
        let is_used = self.is_used.load(Relaxed);
        // A bridge that comes by it alone asks when it parks; then there is a pause.
        let again = now + if is_used { age.max(AGAIN) } else { age };
        self.again.store(again.0, Relaxed);
        let is_refused = matches!(answer.decision, Decision::Refused(_));
        if !is_refused {
            self.say(Some(answer));
        }
        let was_lost = self.is_lost.swap(is_refused, Relaxed);
        is_refused && !was_lost && is_used
    }

    /// Whether the answer has become no.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Whether the answer is to be asked for again; then the caller does so.
    pub(super) fn begin_again(&self, now: Millis) -> bool {
        let again = |at: u64| (at <= now.0).then_some((now + AGAIN).0);
        self.again.fetch_update(Relaxed, Relaxed, again).is_ok()
    }
}

/// How many questions there were, by how they ended, and how many answers were at hand.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) allowed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) kept: AtomicU64,
}

/// The program, for all workers.
pub(super) struct Authoriser {
    table: Mutex<Table>,
    threads: Threads,
    pub(super) counts: Counts,
    /// The zero of the workers' clocks.
    started: Instant,
}

#[derive(Default)]
struct Table {
    /// What is in force; `None` if nobody is asked.
    to: Option<Asked>,
    /// Changes with whom is asked.
    epoch: u64,
    answers: Answers,
    /// Who waits for what.
    waiting: HashMap<(QuestionId, u64), Waiting>,
    /// How many questions wait, by those who have made them necessary.
    waiting_of: HashMap<Share, usize>,
    holds: HashMap<QuestionId, Weak<Hold>>,
    /// How many holds there may be before those are looked for that nobody has any more.
    look_at: usize,
    said_failed: LogLimiter,
    said_lost: LogLimiter,
}

/// Those who wait for an answer.
struct Waiting {
    hold: Arc<Hold>,
    thens: Vec<Then>,
}

impl Table {
    /// What the bridges share that were let in by this question.
    fn hold(&mut self, question: &Question, again: Millis) -> Arc<Hold> {
        if let Some(hold) = self.holds.get(&question.id).and_then(Weak::upgrade) {
            return hold;
        }
        if self.holds.len() >= self.look_at {
            self.holds.retain(|_, hold| hold.strong_count() > 0);
            self.look_at = 2 * self.holds.len() + 1024;
        }
        let hold = Arc::new(Hold::new(question.clone(), again));
        self.holds.insert(question.id, Arc::downgrade(&hold));
        hold
    }

    /// Whether one more question may wait, of so many.
    fn has_room(&self, question: &Question, most: usize) -> bool {
        let shares = question.by.shares();
        let has_room = |(share, part): &(Share, usize)| {
            self.waiting_of.get(share).is_none_or(|count| *count < (most / part).max(1))
        };
        self.waiting.len() < most && shares.iter().all(has_room)
    }

    fn begin_waiting(&mut self, question: &Question, epoch: u64, then: Then) {
        for (share, _) in question.by.shares() {
            *self.waiting_of.entry(share).or_default() += 1;
        }
        let hold = self.hold(question, Millis::default());
        self.waiting.insert((question.id, epoch), Waiting { hold, thens: vec![then] });
    }

    fn end_waiting(&mut self, question: &Question, epoch: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&(question.id, epoch))?;
        for (share, _) in question.by.shares() {
            match self.waiting_of.get_mut(&share) {
                Some(count) if *count > 1 => *count -= 1,
                _ => _ = self.waiting_of.remove(&share),
            }
        }
        Some(waiting)
    }
}

/// The settings that matter here.
#[derive(Clone, PartialEq)]
struct Asked {
    to: Arc<Endpoint>,
    timeout: Duration,
    questions: usize,
    cache: usize,
}

struct Task {
    question: Question,
    to: Arc<Endpoint>,
    until: Instant,
    epoch: u64,
}

/// Answers that are kept. The one that was used longest ago goes first.
#[derive(Default)]
struct Answers {
    by_id: HashMap<QuestionId, Kept>,
    by_use: BTreeMap<u64, QuestionId>,
    /// The same for each of those who have a part of them.
    by_share: HashMap<Share, BTreeMap<u64, QuestionId>>,
    uses: u64,
}

struct Kept {
    answer: Arc<Answer>,
    until: Instant,
    used: u64,
    by: By,
}

impl Answers {
    /// An answer, and how long it may still be used.
    fn get(&mut self, id: &QuestionId, now: Instant) -> Option<(Arc<Answer>, Duration)> {
        let kept = self.take(id).filter(|kept| kept.until > now)?;
        let found = (Arc::clone(&kept.answer), kept.until - now);
        self.insert(*id, kept);
        Some(found)
    }

    /// Keeps an answer, and `most` in all.
    fn put(&mut self, question: &Question, answer: &Arc<Answer>, now: Instant, most: usize) {
        self.take(&question.id);
        if answer.max_age.is_zero() || most == 0 {
            return;
        }
        for (share, part) in question.by.shares() {
            let of = self.by_share.get(&share);
            if let Some(of) = of.filter(|of| of.len() >= (most / part).max(1))
                && let Some(oldest) = of.values().next().copied()
            {
                self.take(&oldest);
            }
        }
        while self.by_id.len() >= most
            && let Some(oldest) = self.by_use.values().next().copied()
        {
            self.take(&oldest);
        }
        let (answer, until, by) = (Arc::clone(answer), now + answer.max_age, question.by.clone());
        self.insert(question.id, Kept { answer, until, used: 0, by });
    }

    /// As the one that was used last.
    fn insert(&mut self, id: QuestionId, mut kept: Kept) {
        self.uses += 1;
        kept.used = self.uses;
        self.by_use.insert(kept.used, id);
        for (share, _) in kept.by.shares() {
            self.by_share.entry(share).or_default().insert(kept.used, id);
        }
        self.by_id.insert(id, kept);
    }

    fn take(&mut self, id: &QuestionId) -> Option<Kept> {
        let kept = self.by_id.remove(id)?;
        self.by_use.remove(&kept.used);
        for (share, _) in kept.by.shares() {
            if let Some(of) = self.by_share.get_mut(&share) {
                of.remove(&kept.used);
                if of.is_empty() {
                    self.by_share.remove(&share);
                }
            }
        }
        Some(kept)
    }
}

/// What is known about a registration.
pub(super) enum Known {
    Allowed(Arc<Hold>),
    /// For this reason.
    Refused(String),
    /// The program must be asked.
    Nothing,
    /// It was asked, and its answer does not come or is no longer in force.
    NoAnswer,
}

impl Authoriser {
    /// `started` is the zero of the workers' clocks.
    pub(super) fn new(started: Instant) -> Authoriser {
        Authoriser {
            table: Mutex::default(),
            threads: Threads::new(THREADS),
            counts: Counts::default(),
            started,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A panic under the lock ends the process.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Asks as `settings` say from now on. What another program has answered is forgotten, and bridges
    /// that it has let in are asked about when they park the next time. Their limits hold until then,
    /// unless nobody is to be asked.
    pub(super) fn put_in_force(&self, settings: &Settings) {
        let asked = settings.authorise.as_ref().map(|to| Asked {
            to: Arc::clone(to),
            timeout: settings.authorise_timeout,
            questions: settings.authorise_questions,
            cache: settings.authorise_cache,
        });
        let mut table = self.lock();
        let whom = |asked: &Option<Asked>| asked.as_ref().map(|asked| Arc::clone(&asked.to));
        if whom(&table.to) != whom(&asked) {
            table.epoch += 1;
            table.answers = Answers::default();
            for hold in table.holds.values().filter_map(Weak::upgrade) {
                hold.again.store(0, Relaxed);
                if asked.is_none() {
                    hold.say(None);
                }
            }
        }
        table.to = asked;
    }

    /// What is known about a registration; `told` is what came of the question about it, if that has been
    /// asked.
    pub(super) fn known(&self, question: &Question, told: Option<&Told>) -> Known {
        let mut table = self.lock();
        if let Some(told) = told.filter(|told| told.id == question.id) {
            return match &told.answer {
                Some(answer) if told.epoch == table.epoch => allowed_or_not(&told.hold, answer),
                _ => Known::NoAnswer,
            };
        }
        let Some((answer, age)) = table.answers.get(&question.id, Instant::now()) else {
            return Known::Nothing;
        };
        self.counts.kept.fetch_add(1, Relaxed);
        let hold = table.hold(question, self.now() + age);
        if hold.changes() == 0 && matches!(answer.decision, Decision::Allowed { .. }) {
            hold.say(Some(&answer));
        }
        allowed_or_not(&hold, &answer)
    }

    /// Puts the answer in force that is at hand for a hold, if there is one. Returns whether bridges
    /// have lost it.
    pub(super) fn recall(&self, hold: &Hold) -> Option<bool> {
        let mut table = self.lock();
        let (answer, age) = table.answers.get(&hold.question.id, Instant::now())?;
        Some(self.hear(&mut table, hold, &answer, age))
    }

    /// How many questions wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// What the bridges share about which this question is asked when they park.
    pub(super) fn hold(&self, question: &Question) -> Arc<Hold> {
        self.lock().hold(question, Millis::default()).give()
    }

    /// Has a thread ask, unless the same is being asked. `then` is called with the answer.
    ///
    /// False if too much is being asked, or no thread can be started: then `then` is not called.
    pub(super) fn ask(
        self: &Arc<Self>,
        question: &Question,
        then: impl FnOnce(Told) + Send + 'static,
    ) -> bool {
        let mut table = self.lock();
        let Some(Asked { to, timeout, questions, .. }) = table.to.clone() else { return false };
        let epoch = table.epoch;
        if let Some(waiting) = table.waiting.get_mut(&(question.id, epoch)) {
            waiting.thens.push(Box::new(then));
            return true;
        }
        if !table.has_room(question, questions) {
            return false;
        }
        let (authoriser, until) = (Arc::clone(self), Instant::now() + timeout);
        let task = Task { question: question.clone(), to, until, epoch };
        // It cannot end before the question waits: the table is locked.
        let is_taken = self.threads.run(move || {
            let answer = authorise_call::ask(&task.to, &task.question.text, task.until);
            authoriser.finish(&task, answer);
        });
        if is_taken {
            table.begin_waiting(question, epoch, Box::new(then));
        }
        is_taken
    }

    /// Puts an answer in force, and tells those who wait for it. One of a program that is no longer asked
    /// is none.
    fn finish(&self, task: &Task, result: Result<Answer, String>) {
        let question = &task.question;
        let mut table = self.lock();
        let Some(waiting) = table.end_waiting(question, task.epoch) else { return };
        let (mut answer, mut lost) = (None, false);
        match result {
            Ok(result) => {
                self.count(&result);
                if table.epoch == task.epoch {
                    let result = answer.insert(Arc::new(result));
                    lost = self.put(&mut table, &waiting.hold, result);
                }
            }
            Err(what) => {
                self.counts.failed.fetch_add(1, Relaxed);
                if let Some(count) = table.said_failed.allow(self.now()) {
                    let more = suppressed(count, " questions failed");
                    log::warn!("authorise: {} has not answered: {what}{more}", task.to);
                }
            }
        }
        drop(table);
        for (at, then) in waiting.thens.into_iter().enumerate() {
            let (answer, hold) = (answer.clone(), Arc::clone(&waiting.hold));
            let lost = lost && at == 0;
            then(Told { id: question.id, hold, epoch: task.epoch, answer, lost });
        }
    }

    /// Keeps an answer, and puts it in force. True if bridges have lost what they were let in by.
    fn put(&self, table: &mut Table, hold: &Hold, answer: &Arc<Answer>) -> bool {
        let most = table.to.as_ref().map_or(0, |asked| asked.cache);
        table.answers.put(&hold.question, answer, Instant::now(), most);
        self.hear(table, hold, answer, answer.max_age)
    }

    /// Puts an answer in force that may be used for so long. True if bridges have lost what they were
    /// let in by.
    fn hear(&self, table: &mut Table, hold: &Hold, answer: &Arc<Answer>, age: Duration) -> bool {
        let lost = hold.hear(answer, (self.now(), age));
        if lost && let Some(count) = table.said_lost.allow(self.now()) {
            let (about, more) = (&hold.question.about, suppressed(count, ""));
            log::info!("authorise: {about} is no longer allowed; its bridges are closed{more}");
        }
        lost
    }

    fn count(&self, answer: &Answer) {
        match answer.decision {
            Decision::Allowed { .. } => self.counts.allowed.fetch_add(1, Relaxed),
            Decision::Refused(_) => self.counts.refused.fetch_add(1, Relaxed),
        };
    }
}

/// What an answer means for a bridge that is to share this.
fn allowed_or_not(hold: &Arc<Hold>, answer: &Answer) -> Known {
    match &answer.decision {
        Decision::Refused(reason) => Known::Refused(reason.clone()),
        // An equal question has been answered with no since.
        Decision::Allowed { .. } if hold.is_lost() => Known::NoAnswer,
        Decision::Allowed { .. } => Known::Allowed(hold.give()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn question(text: &str) -> Question {
        of("root", "a.test", text)
    }

    fn of(root: &str, visitor: &str, text: &str) -> Question {
        let by = By { root: root.into(), visitor: visitor.into() };
        Question::new(text, text, "a.test", by)
    }

    fn answer(is_allowed: bool, seconds: u64) -> Arc<Answer> {
        let decision = match is_allowed {
            true => Decision::Allowed { limits: Limits::default(), account: None },
            false => Decision::Refused(String::new()),
        };
        Arc::new(Answer { decision, max_age: Duration::from_secs(seconds) })
    }

    #[test]
    fn answers_are_kept_for_their_time_and_those_used_last_for_longest() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let asked = ["a", "b", "c", "d"].map(|name| of(name, name, name));
        for question in &asked[..3] {
            answers.put(question, &answer(true, 60), now, 3);
        }
        assert!(answers.get(&asked[0].id, after(59)).is_some());
        answers.put(&asked[3], &answer(false, 10), now, 3);
        let ids = asked.each_ref().map(|question| question.id);
        let has = |answers: &mut Answers, at| ids.map(|id| answers.get(&id, after(at)).is_some());
        assert_eq!(has(&mut answers, 9), [true, false, true, true]);
        assert_eq!(has(&mut answers, 10), [true, false, true, false]);
        answers.put(&asked[0], &answer(true, 0), now, 3);
        assert_eq!(has(&mut answers, 0), [false, false, true, false], "it is not to be kept");
        assert_eq!((answers.by_id.len(), answers.by_use.len(), answers.by_share.len()), (1, 1, 2));
    }

    #[test]
    fn nobody_pushes_out_the_answers_of_all_others() {
        let (mut answers, now, yes) = (Answers::default(), Instant::now(), answer(true, 60));
        let other = of("other", "x", "other");
        answers.put(&other, &yes, now, 8);
        // Much is asked for one visitor; and then for visitors that were made up.
        (0..50).for_each(|n| answers.put(&of("root", "v", &format!("v{n}")), &yes, now, 8));
        assert_eq!(answers.by_id.len(), 1 + 2);
        (0..50).for_each(|n| {
            answers.put(&of("root", &format!("v{n}"), &format!("r{n}")), &yes, now, 8);
        });
        assert_eq!(answers.by_id.len(), 1 + 4);
        assert!(answers.get(&other.id, now).is_some());
    }

    #[test]
    fn nobody_keeps_the_questions_of_all_others_out() {
        let mut table = Table::default();
        let wait = |table: &mut Table, question: Question| {
            let has_room = table.has_room(&question, 8);
            if has_room {
                table.begin_waiting(&question, 0, Box::new(|_| {}));
            }
            has_room
        };
        let of_one = ["a", "b", "c"].map(|text| wait(&mut table, of("root", "v", text)));
        assert_eq!(of_one, [true, true, false]);
        let made_up = ["d", "e", "f"].map(|name| wait(&mut table, of("root", name, name)));
        assert_eq!(made_up, [true, true, false]);
        assert!(wait(&mut table, of("other", "other", "g")));
        for (root, visitor, text) in
            [("root", "v", "a"), ("root", "v", "b"), ("root", "d", "d"), ("root", "e", "e")]
        {
            assert!(table.end_waiting(&of(root, visitor, text), 0).is_some());
        }
        assert_eq!((table.waiting.len(), table.waiting_of.len()), (1, 2));
    }

    fn hear(authoriser: &Authoriser, hold: &Hold, is_allowed: bool) -> bool {
        authoriser.put(&mut authoriser.lock(), hold, &answer(is_allowed, 0))
    }

    #[test]
    fn a_hold_is_lost_once_and_may_come_back() {
        let authoriser = Authoriser::new(Instant::now());
        let asked = question("a");
        let waits = authoriser.lock().hold(&asked, Millis(0));
        assert!(!hear(&authoriser, &waits, false), "no bridge has it");
        assert!(!hear(&authoriser, &waits, true));
        let [hold, again] = [(); 2].map(|()| authoriser.hold(&asked));
        assert!(Arc::ptr_eq(&hold, &again) && Arc::ptr_eq(&hold, &waits) && !hold.is_lost());
        assert!(hear(&authoriser, &hold, false) && hold.is_lost());
        assert!(!hear(&authoriser, &hold, false), "that is known");
        assert!(!hear(&authoriser, &hold, true) && !hold.is_lost());
        assert_eq!(hold.changes(), 1, "it is the same again");
    }

    #[test]
    fn a_yes_that_a_later_no_has_overtaken_lets_nobody_in() {
        let authoriser = Authoriser::new(Instant::now());
        let asked = question("a");
        let hold = authoriser.lock().hold(&asked, Millis(0));
        let told = |epoch, answer| Told {
            id: asked.id,
            hold: Arc::clone(&hold),
            epoch,
            answer,
            lost: false,
        };
        hear(&authoriser, &hold, true);
        let yes = told(0, Some(answer(true, 0)));
        assert!(matches!(authoriser.known(&asked, Some(&yes)), Known::Allowed(_)));
        hear(&authoriser, &hold, false);
        assert!(matches!(authoriser.known(&asked, Some(&yes)), Known::NoAnswer));
        hear(&authoriser, &hold, true);
        let of_another = told(1, Some(answer(true, 0)));
        assert!(matches!(authoriser.known(&asked, Some(&of_another)), Known::NoAnswer));
        assert!(matches!(authoriser.known(&asked, None), Known::Nothing));
    }

    #[test]
    fn a_hold_is_asked_about_again_once_in_a_while() {
        let hold = Hold::new(question("a"), Millis(60_000));
        assert!(!hold.begin_again(Millis(59_999)));
        let now = Millis(60_000);
        assert!(hold.begin_again(now) && !hold.begin_again(now + Duration::from_secs(4)));
        assert!(hold.begin_again(now + AGAIN));
    }

    #[test]
    fn nobody_is_asked_where_nothing_is_set() {
        let authoriser = Arc::new(Authoriser::new(Instant::now()));
        assert!(!authoriser.ask(&question("a"), |_| panic!("nobody is asked")));
        assert!(matches!(authoriser.known(&question("a"), None), Known::Nothing));
    }
}
