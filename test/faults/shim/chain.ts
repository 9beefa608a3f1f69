/**
 * A run that is spoiled, then the same line again without fault until it ends well: a chain, which is judged as a
 * whole.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../../src/core/accounting/receipt'
import { start } from '../../support/manifold'
import type { Scenario, World } from './scenarios'
import { callsOf, shimEnv, type Call, type Fault } from './shim'

/** Far more than a run takes on a busy machine: beyond it the run hangs. */
const HANGS_MS = 60_000
/** Runs without fault that may be needed to end well. */
const ATTEMPTS = 3

export interface Run {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
  readonly hung: boolean
  readonly calls: readonly Call[]
  /** What the destinations held when it had ended. */
  readonly outputs: readonly (readonly string[])[]
}
export interface Chain {
  readonly world: World
  readonly fault: Fault | undefined
  /** The spoiled one first. */
  readonly runs: readonly Run[]
  readonly receipts: readonly Receipt[]
  /** Lines of the receipt file that are no receipt. */
  readonly torn: readonly string[]
  /** Where all of it lies; the caller removes it. */
  readonly folder: string
}

export class Chains {
  constructor(private readonly library: string) {}

  async chain(scenario: Scenario, fault: Fault | undefined): Promise<Chain> {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), `manifold-call-${scenario.name}-`)))
    const root = join(folder, 'root')
    mkdirSync(root)
    const world = await scenario.start(root)
    try {
      if (world.after !== undefined)
        await this.run(world, folder, 'before', 0, { mode: 'kill', at: 1, only: world.after })
      const runs = [await this.run(world, folder, 'spoiled', 0, fault)]
      for (let i = 1; fault !== undefined && i <= ATTEMPTS; i++) {
        const again = await this.run(world, folder, `again-${i}`, i)
        runs.push(again)
        if (again.code !== null && world.well.includes(again.code)) break
      }
      return { world, fault, runs, ...receiptsOf(join(root, 'receipts')), folder }
    } finally {
      await world.stop?.()
    }
  }

  private async run(world: World, folder: string, name: string, index: number, fault?: Fault): Promise<Run> {
    const root = join(folder, 'root')
    const log = join(folder, `${name}.calls`)
    const input = world.input?.(index)
    const running = start([...world.args, '--receipt', join(root, 'receipts')], {
      env: { ...world.env, ...shimEnv(this.library, root, log, fault) },
      ...(input === undefined ? {} : { input }),
    })
    let hung = false
    const timer = setTimeout(() => {
      hung = true
      running.kill('SIGKILL')
    }, HANGS_MS)
    const { code, signal, stderr } = await running.done
    clearTimeout(timer)
    writeFileSync(join(folder, `${name}.stderr`), stderr)
    return { code, signal, stderr, hung, calls: callsOf(log), outputs: await world.outputs() }
  }
}

export function discard({ folder }: Chain): void {
  rmSync(folder, { recursive: true, force: true })
}

export function receiptsOf(file: string): { readonly receipts: readonly Receipt[]; readonly torn: readonly string[] } {
  const receipts: Receipt[] = []
  const torn: string[] = []
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : ['']
  if (lines.at(-1) === '') lines.pop()
  for (const line of lines)
    try {
      receipts.push(JSON.parse(line) as Receipt)
    } catch {
      torn.push(line)
    }
  return { receipts, torn }
}
