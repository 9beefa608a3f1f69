/**
 * Writes the output of a command to stdout. The reader may close the pipe early, as head does, or the disk may be full.
 * Neither is a bug.
 */
import { EXIT } from '../core/flow/exit-code'
import { writeStderr } from './stderr'

/** This has to be called before anything is written. */
export function handleStdoutErrors(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') writeStderr(`manifold: the answer could not be written to stdout: ${error.message}\n`)
    process.exit(error.code === 'EPIPE' ? EXIT.readerGone : EXIT.disk)
  })
}

/** Resolves once everything is written. A pipe may take it later than `write` returns. */
export function flushStdout(): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write('', () => {
      resolve()
    })
  })
}

export async function print(text: string): Promise<number> {
  handleStdoutErrors()
  process.stdout.write(text)
  await flushStdout()
  return EXIT.complete
}
