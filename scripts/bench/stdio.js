/** stdin to stdout against cat, and stdin into the spool against dd with synchronous writes. */
'use strict'
const { accept } = require('./accept')
const { data } = require('./data')
const { compare, measure } = require('./measure')

async function run({ manifold, folder, state, pairs, wants, bytes, ten, results, memory }) {
  if (!wants('stdio') && !wants('accept')) return
  const { file, lines } = data(bytes)
  const through = (input) =>
    measure((wrap) => `cat '${input}' | ${wrap(`'${manifold}' --from - --to -`)} | cat > /dev/null`)
  const accepted = (input, count) => accept({ manifold, feed: `cat '${input}'`, count, state: state() })
  if (wants('stdio'))
    results.push(
      await compare(
        'stdin to stdout',
        pairs,
        () => measure(() => `cat '${file}' | cat | cat > /dev/null`),
        () => through(file),
        0.5,
      ),
    )
  if (wants('accept')) {
    results.push(
      await compare(
        'accept into the spool',
        pairs,
        () =>
          measure(
            () =>
              `cat '${file}' | dd bs=4M iflag=fullblock oflag=dsync of='${folder}/dd' status=none && rm '${folder}/dd'`,
          ),
        () => accepted(file, lines),
        0.5,
      ),
    )
  }
  if (!ten) return
  const large = data(bytes * 10)
  if (wants('stdio')) memory.push(['stdin to stdout, ten times the bytes', (await through(large.file)).mib])
  if (wants('accept'))
    memory.push(['accept into the spool, ten times the bytes', (await accepted(large.file, large.lines)).mib])
}

module.exports = { names: ['stdio', 'accept'], run }
