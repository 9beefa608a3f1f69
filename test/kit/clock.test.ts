import { CorrectedTime } from '../../src/core/flow/corrected-time'
import { systemClock, wallClock } from '../../src/kit/clock'

/** Both clocks and the time since boot, moved by hand. */
class Machine {
  date = 1_000_000
  ticks = 500.25
  up = 100
  readonly wall = wallClock(
    () => Math.floor(this.date),
    () => this.ticks,
    this.date - this.ticks,
  )
  readonly clock = { now: this.wall, monotonic: () => this.ticks }
  pass(ms: number): void {
    this.date += ms
    this.ticks += ms
    this.up += ms / 1000
  }
  step(ms: number): void {
    this.date += ms
  }
  sleep(ms: number): void {
    this.date += ms
    this.up += ms / 1000
  }
}

test('the date has fractions, and goes with the monotonic clock', () => {
  const machine = new Machine()
  machine.pass(0.5)
  const first = machine.wall()
  machine.pass(0.25)
  expect(machine.wall() - first).toBe(0.25)
  machine.pass(86_400_000)
  expect(machine.wall() - first).toBe(86_400_000.25)
})

test('the date follows a clock that is set, forth and back, and one that slept', () => {
  const machine = new Machine()
  for (const ms of [3_600_000, -7_200_000, 50, -50]) {
    machine.step(ms)
    expect(Math.abs(machine.wall() - machine.date)).toBeLessThanOrEqual(1)
    machine.pass(10.5)
    expect(Math.abs(machine.wall() - machine.date)).toBeLessThanOrEqual(1)
  }
  machine.sleep(8 * 3_600_000)
  expect(Math.abs(machine.wall() - machine.date)).toBeLessThanOrEqual(1)
})

test("this machine's date is that of Date, with fractions; durations have a clock of their own", () => {
  expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(100)
  const times = Array.from({ length: 1000 }, () => systemClock.now())
  expect(times.some((time) => !Number.isInteger(time))).toBe(true)
  expect(Math.abs(systemClock.monotonic() - performance.now())).toBeLessThan(100)
})

test('a moment is told by the date as it is known later: set meanwhile, or asleep meanwhile', () => {
  const machine = new Machine()
  const moment = new CorrectedTime(machine.clock, () => machine.up)
  const begun = moment.at
  machine.pass(3000)
  expect([moment.at, moment.ms]).toEqual([begun, 3000])
  machine.step(3_600_000)
  expect(Math.abs(moment.at - (begun + 3_600_000))).toBeLessThanOrEqual(1)
  machine.step(-3_600_000)
  machine.sleep(8 * 3_600_000)
  expect(Math.abs(moment.at - begun)).toBeLessThanOrEqual(1)
  expect(moment.ms).toBe(3000)
})
