/**
 * The power is cut on a file system of its own (a loop device) while a flow runs, again and again; then the line is run
 * to its end. Nothing that was confirmed may be gone, nothing twice that is not counted, no line torn. Half of the cuts
 * stop the process in the same instant, as a power cut does; the others leave it running on a disk that is gone, until
 * it ends by itself.
 *
 * MANIFOLD_LONG=1 makes it many histories per flow. At the first fault the folder is kept and named: the images of the
 * disk as each cut left it, receipts, and what each run said. MANIFOLD_SEED=N begins with that history.
 */
import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { receiptsOf, type Chain, type Run } from './shim/chain'
import { receiptFaults, recordFaults, told } from './shim/judge'
import { HISTORIES, type CutWorld, type History } from './cut/histories'
import { LoopDisk, whyNoLoopDisk, type FileSystemKind } from './cut/loop-disk'
import { start, type Running } from '../support/manifold'

const LONG = process.env['MANIFOLD_LONG'] === '1'
const ROUNDS = LONG ? 40 : 1
const CUTS = LONG ? 4 : 2
const SEED = Number(process.env['MANIFOLD_SEED'] ?? 1)
/** Beyond this a run hangs. */
const HANGS_MS = 60_000

/** mulberry32: 0 to 1, the same for the same seed. */
function drawnFrom(seed: number): () => number {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

function describeWithDisk(kind: FileSystemKind, body: () => void): void {
  const why = whyNoLoopDisk(kind)
  if (why === undefined) {
    describe(`power cut on ${kind}`, body)
    return
  }
  process.stderr.write(`SKIPPED: power cut on ${kind}: ${why}\n`)
  describe.skip(`power cut on ${kind} (skipped: ${why})`, () => {
    for (const { name } of HISTORIES) it(name, () => undefined)
  })
}

class Cutting {
  private readonly runs: Run[] = []
  private cuts = 0
  constructor(
    private readonly world: CutWorld,
    private readonly disk: LoopDisk,
    private readonly folder: string,
    private readonly random: () => number,
  ) {}

  async history(cuts: number): Promise<readonly string[]> {
    const early: string[] = []
    for (let i = 0; i < cuts; i++) early.push(...(await this.cutRun()))
    for (let attempt = 0; attempt < 3 && !this.endedWell(this.runs.at(-1)); attempt++) await this.lastRun()
    const last = this.runs.at(-1)
    const faults = [
      ...early,
      ...(this.endedWell(last) ? [] : [`it does not end well any more: ${last?.signal ?? last?.code} ${last?.stderr}`]),
    ]
    const chain: Chain = {
      world: this.world,
      fault: undefined,
      runs: this.runs,
      ...receiptsOf(join(this.folder, 'receipts')),
      folder: this.folder,
    }
    return [
      ...faults,
      ...this.runs.flatMap(told),
      ...(this.world.faults?.(chain) ?? [...receiptFaults(chain), ...recordFaults(chain, 0)]),
    ]
  }

  private async cutRun(): Promise<readonly string[]> {
    const { running, ended, finish } = this.begin()
    const at = this.world.progress() + this.random() * 0.4
    const together = this.random() < 0.5
    while (this.world.progress() < at && !ended())
      await new Promise((resolve) => {
        setTimeout(resolve, 2)
      })
    if (together) running.kill('SIGSTOP')
    this.disk.cut()
    let killed = together
    if (together) running.kill('SIGKILL')
    const timer = setTimeout(() => {
      killed = true
      running.kill('SIGKILL')
    }, 8000)
    finish()
    const run = await this.done(running, false)
    clearTimeout(timer)
    this.disk.recover(join(this.folder, `cut-${++this.cuts}.img`))
    if (killed || run.code === 74 || this.world.well.includes(run.code ?? -1)) return []
    return [`on a disk that is gone it ends with ${run.signal ?? run.code}, not 74: ${run.stderr.slice(0, 300)}`]
  }

  private async lastRun(): Promise<void> {
    const { running, finish } = this.begin()
    const soon = setTimeout(finish, 300)
    await this.done(running, true)
    clearTimeout(soon)
  }

  private begin(): { readonly running: Running; ended(): boolean; finish(): void } {
    const running = start([...this.world.args, '--receipt', join(this.folder, 'receipts')], {
      env: this.world.env ?? {},
      ...(this.world.feed === undefined ? {} : { input: 'open' as const }),
    })
    let over = false
    void running.done.then(() => {
      over = true
    })
    return { running, ended: () => over, finish: this.world.feed?.(running) ?? (() => undefined) }
  }

  private async done(running: Running, look: boolean): Promise<Run> {
    let hung = false
    const timer = setTimeout(() => {
      hung = true
      running.kill('SIGKILL')
    }, HANGS_MS)
    const { code, signal, stderr } = await running.done
    clearTimeout(timer)
    const run: Run = { code, signal, stderr, hung, calls: [], outputs: look ? await this.world.outputs() : [] }
    writeFileSync(join(this.folder, `run-${this.runs.length + 1}.stderr`), `${signal ?? code}\n${stderr}`)
    this.runs.push(run)
    return run
  }

  private endedWell(run: Run | undefined): boolean {
    return run !== undefined && run.outputs.length > 0 && this.world.well.includes(run.code ?? -1)
  }
}

async function round(kind: FileSystemKind, history: History, seed: number): Promise<readonly string[]> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), `manifold-cut-${kind}-`)))
  const disk = LoopDisk.make(kind, folder)
  let faults: readonly string[] = ['it did not come to an end']
  try {
    const world = await history.start(disk.path, folder)
    try {
      faults = await new Cutting(world, disk, folder, drawnFrom(seed)).history(CUTS)
    } finally {
      await world.stop?.()
    }
  } finally {
    disk.unmount()
    if (faults.length === 0) {
      disk.remove()
      rmSync(folder, { recursive: true })
    }
  }
  return faults.length === 0 ? [] : [`seed ${seed}, kept in ${folder}`, ...faults]
}

for (const kind of ['ext4', 'xfs'] as const) {
  describeWithDisk(kind, () => {
    for (const history of HISTORIES) {
      test(
        `${history.name}: ${CUTS} cuts, ${ROUNDS} times`,
        async () => {
          for (let i = 0; i < ROUNDS; i++) expect(await round(kind, history, SEED + i)).toEqual([])
          process.stderr.write(`power cut on ${kind}: ${history.name}: ${ROUNDS * CUTS} cuts\n`)
        },
        ROUNDS * 120_000,
      )
    }
  })
}
