/** Runs test/state/holder.js: a process apart that holds locks, or is refused. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

export interface OtherProcess {
  readonly pid: number
  /** held, refused or looking, per path. */
  readonly answers: readonly string[]
  /** Ends it by SIGKILL and waits until it is gone. */
  kill(): Promise<void>
}

/** @param paths of locks; after `--look` they are only looked at */
export async function otherProcess(paths: readonly string[]): Promise<OtherProcess> {
  const child = spawn(process.execPath, [join(__dirname, 'holder.js'), ...paths], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const answers: string[] = []
  const gone = once(child, 'exit')
  for await (const line of createInterface({ input: child.stdout })) {
    answers.push(line)
    if (answers.length === paths.filter((path) => path !== '--look').length) break
  }
  return {
    pid: child.pid ?? 0,
    answers,
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
  }
}
