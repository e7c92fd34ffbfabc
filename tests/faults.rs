//! The real process under faults and under load: what is killed, full, gone, stalled, changed or too much. Each test says
//! in its name what must come of it. Longer runs by the environment: ICHD_KILL_ROUNDS, ICHD_FOLDER_FILES, ICHD_LOAD_SLICES,
//! ICHD_SOAK_ROUNDS.

mod device;
mod folders;
mod limits;
mod load;
mod process;
mod tools;
