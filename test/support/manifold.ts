/** Starts the built program as a child process. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

const ROOT = join(__dirname, '../..')
export const LAUNCHER = join(ROOT, 'bin/manifold.js')

export interface Finished {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: Buffer
  readonly stderr: string
  readonly ms: number
}
export interface Running {
  readonly child: ChildProcess
  readonly pid: number
  /** Everything on stderr so far. */
  stderr(): string
  kill(signal: NodeJS.Signals): void
  readonly done: Promise<Finished>
}
export interface StartOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
  /** Given: written and closed. Absent: stdin is empty. 'open': left open for the caller. */
  readonly input?: Buffer | string | 'open'
  readonly stdout?: 'ignore' | number
  /** What starts it: a command that becomes the one in its last words. */
  readonly through?: readonly string[]
}

/** Environment without what the caller's session may have set. */
export function cleanEnv(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {}
  for (const [name, value] of Object.entries(process.env))
    if (!/^(MANIFOLD_(?!TEST|SERVICES)|AWS_|STATE_DIRECTORY|JOURNAL_STREAM|XDG_STATE|NODE_OPTIONS|JEST)/.test(name))
      env[name] = value
  return { ...env, ...more }
}

export function start(args: readonly string[], options: StartOptions = {}): Running {
  const from = Date.now()
  const [command = LAUNCHER, ...words] = [...(options.through ?? []), LAUNCHER, ...args]
  const child = spawn(command, words, {
    env: cleanEnv(options.env),
    cwd: options.cwd,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', options.stdout ?? 'pipe', 'pipe'],
  })
  const out: Buffer[] = []
  let err = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    out.push(chunk)
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    err += chunk.toString()
  })
  if (options.input !== undefined && options.input !== 'open') {
    // The reader may be gone before all is written: that is what some tests are about.
    child.stdin?.on('error', () => undefined)
    child.stdin?.end(options.input)
  }
  const done = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
    stdout: Buffer.concat(out),
    stderr: err,
    ms: Date.now() - from,
  }))
  return {
    child,
    pid: child.pid ?? 0,
    stderr: () => err,
    kill: (signal) => {
      child.kill(signal)
    },
    done,
  }
}

export function manifold(args: readonly string[], options: StartOptions = {}): Promise<Finished> {
  return start(args, options).done
}
