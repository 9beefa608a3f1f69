/**
 * Reads, follows, writes and rotates files.
 *
 * - A file that is read is a partition. Its name is the path where it was found; two files of one path (rotation)
 *   differ by `#2`. The position identifies the file by inode, birth time and content. A renamed file is read on, a
 *   truncated or replaced one is a new file.
 * - Names are bytes: a name that is not UTF-8 is matched and read as well (`kit/file-names.ts`). A path that exists is
 *   no pattern.
 * - Only whole lines are returned while a file is followed. A last line without newline counts once its file is
 *   finished.
 * - A file that is damaged, or may not be read, does not stop the others. All that can be read of it is returned, and
 *   the rest is reported as a gap in every run. The source fails only if nothing at all can be read.
 * - Records that the spool has lost are read again from the same file, which is recognised by its content under any
 *   rotated name.
 * - About sixteen followed files are open at once. An idle one is closed for another.
 * - fdatasync confirms a write, and fsync of the folder confirms a new name. Other processes may write to the same
 *   file, because each write is appended in one piece. A torn write of a killed process is removed before the next
 *   write, if it is certainly ours.
 * - `file-set.ts`, `tail.ts`, `candidates.ts` and `identity.ts` serve the source; `output-file.ts`, `marker.ts` and
 *   `torn-write.ts` serve the sink.
 */
import { compressionOf } from '../../codec/compression'
import { isGlob } from '../../kit/glob-pattern'
import { defineEndpoint, type OptionsOf } from '../../options/define'
import { options } from './options'
import { startOf } from './start'
import { templateFaults } from './template'

function levelFaults({ compression, compressionLevel }: OptionsOf<typeof options>, path: string): readonly string[] {
  const kind = compression === 'auto' ? compressionOf(path) : compression
  if (compressionLevel === undefined || kind === 'zstd') return []
  if (kind === 'none')
    return ['compression-level needs compression=gzip or compression=zstd, or a path that ends in .gz or .zst']
  return compressionLevel > 9 ? ['compression-level: 9 is the most for gzip'] : []
}

export default defineEndpoint({
  schemes: ['file'],
  summary: 'Files: read, followed, written and rotated',
  forms: ['file:PATH', "file:'GLOB'", 'PATH'],
  examples: [
    "manifold --from file:'/var/log/app/*.ndjson.gz' --to s3://lake/app",
    'manifold --from file:/var/log/app.ndjson follow start=latest --to -',
    "manifold --from - --to file:'/data/{yyyy}/{mm}/{dd}/feed-{HH}.ndjson.gz' rotate-size=256MiB",
  ],
  form: 'path',
  options,
  files: async (given, role) => (await import('./files.js')).filesOf(given, role),
  check: ({ uri, options: given }, role) => {
    if (uri.path === '') return ['file: needs a path, such as file:/var/log/app.ndjson']
    if (role === 'sink')
      return [
        ...(isGlob(uri.path.replace(/\{\w+\}/g, '')) ? [`file:${uri.path} is a pattern; one file is written to`] : []),
        ...templateFaults(uri.path, given),
        ...levelFaults(given, uri.path),
      ]
    try {
      startOf(given.start)
    } catch (error) {
      return [(error as Error).message]
    }
    return []
  },
  source: {
    position: 'here',
    bounded: ({ options: given }) => !given.follow,
    load: async () => (await import('./source.js')).create,
  },
  sink: { load: async () => (await import('./sink.js')).create },
})
