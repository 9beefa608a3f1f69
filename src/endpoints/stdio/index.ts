/**
 * Reads standard input and writes standard output.
 *
 * - stdin ends when its writer closes it. Its records exist nowhere else, so nothing is committed or resumed.
 * - If stdout is a regular file, fdatasync confirms a write. A pipe, socket or terminal cannot confirm, and a full one
 *   is waited for.
 * - Neither descriptor is ever closed.
 */
import { defineEndpoint, type Files } from '../../options/define'
import { fstatSync } from 'node:fs'
import { options } from './options'

/** Returns the file to which the shell has redirected a descriptor. */
function filesOf(fd: number): Files {
  try {
    const facts = fstatSync(fd, { bigint: true })
    return { keys: facts.isFile() ? [`${facts.dev}:${facts.ino}`] : [], paths: [] }
  } catch {
    return { keys: [], paths: [] }
  }
}

export default defineEndpoint({
  schemes: ['stdio'],
  summary: 'Standard input and standard output',
  forms: ['-', 'stdio:'],
  examples: [
    "printf 'one\\ntwo\\n' | manifold --from - --to -",
    "printf 'one\\ntwo\\n' | manifold --from - --to - framing=envelope",
  ],
  form: 'opaque',
  shorthand: '-',
  labels: { source: 'stdin', sink: 'stdout' },
  options,
  check: ({ uri }) =>
    uri.path === '' || uri.path === '-'
      ? []
      : [`stdio: takes no path, but there is ${JSON.stringify(uri.path)}; a file is file:${uri.path}`],
  canonicalForm: () => ({ resources: [''] }),
  files: (_, role) => Promise.resolve(filesOf(role === 'source' ? 0 : 1)),
  source: {
    position: 'none',
    sharesWork: true,
    bounded: true,
    fed: true,
    load: async () => (await import('./source.js')).create,
  },
  sink: { ephemeral: true, load: async () => (await import('./sink.js')).create },
})
