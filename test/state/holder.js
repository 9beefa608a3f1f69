/**
 * Another process that holds locks: `node holder.js PATH…` takes each with BEGIN EXCLUSIVE, as src/state/lock.ts does,
 * prints "held" or "refused" for each and stays until it is ended. After `--look` it only looks, and says "looking".
 */
const { DatabaseSync } = require('node:sqlite')
const { writeFileSync } = require('node:fs')
const kept = []
const [first, ...rest] = process.argv.slice(2)
const look = first === '--look'
for (const path of look ? rest : [first, ...rest]) {
  const database = new DatabaseSync(path)
  try {
    database.exec(look ? 'BEGIN; SELECT 1 FROM sqlite_schema' : 'BEGIN EXCLUSIVE')
    kept.push(database)
    if (!look) writeFileSync(`${path}.pid`, `${process.pid}\n`)
    process.stdout.write(look ? 'looking\n' : 'held\n')
  } catch (error) {
    process.stdout.write(error.errcode === 5 ? 'refused\n' : `${error.message}\n`)
  }
}
setInterval(() => kept.length, 1000)
